"""HTML of the page whose buttons say what was chosen: <button data-choose="boat">. One component for galleries, chips and resets."""

import gradio as gr

CHOOSE = """element.addEventListener('click', event => {
  const button = event.target.closest('[data-choose]');
  if (button) trigger('click', {chosen: button.dataset.choose});
});"""


def buttons(value: str = "", **layout) -> gr.HTML:
    """A component whose `click` tells an event function, as `event.chosen`, the data-choose of the button that was pressed."""
    return gr.HTML(value, js_on_load=CHOOSE, **layout)
