() => {
  // What Gradio leaves unsaid: a chip's remover is called by its number, an upload's name is not its text, toasts say "Error", and arrow
  // keys do not walk through tabs
  const titles = { Error: 'That does not work', Warning: 'Please note' };
  const called = (element, said) => { if (element.getAttribute('aria-label') !== said) element.setAttribute('aria-label', said); };
  const name = () => {
    for (const chip of document.querySelectorAll('.token')) {
      const remover = chip.querySelector('.token-remove'), said = `Remove ${chip.querySelector('span').innerText.trim()}`;
      if (remover && remover.title !== said) { remover.title = said; called(remover, said); }
    }
    for (const upload of document.querySelectorAll('button.upload-container')) called(upload, upload.textContent.replace(/\s+/g, ' ').trim());
    for (const title of document.querySelectorAll('.toast-title')) {
      for (const text of title.childNodes) {
        const said = text.nodeType === Node.TEXT_NODE ? titles[text.data.trim()] : null;
        if (said) text.data = `${said} `;
      }
    }
  };
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
  name();
  document.addEventListener('keydown', event => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key], tab = event.target.closest('[role=tab]');
    if (!step || !tab) return;
    const tabs = [...tab.parentElement.querySelectorAll(':scope > [role=tab]')];
    const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
    event.preventDefault();
    next.click();
    next.focus();
  });
}
