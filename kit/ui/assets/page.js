() => {
  // Gradio calls a chip's remover by its number: here it says which word it takes away
  const name = () => {
    for (const chip of document.querySelectorAll('.token')) {
      const remover = chip.querySelector('.token-remove'), said = `Remove ${chip.querySelector('span').innerText.trim()}`;
      if (remover && remover.title !== said) { remover.title = said; remover.setAttribute('aria-label', said); }
    }
  };
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
  name();
}
