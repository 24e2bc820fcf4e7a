// The strip of stages: one of them fills the width, is wiped against another and read under the pointer; arrow keys walk through them.
let large = null, other = null, cut = 100;
const planes = new Map();  // address of a plane -> its pixels, as a promise
const figures = () => [...element.querySelectorAll('figure[data-stage]')];
const named = stage => figures().find(figure => figure.dataset.stage === stage);
const made = (tag, values = {}) => Object.assign(document.createElement(tag), values);

function draw() {
  for (const figure of element.querySelectorAll('.kit-large')) {
    figure.classList.remove('kit-large');
    figure.querySelectorAll('.kit-tools, .kit-over').forEach(part => part.remove());
    figure.querySelector('.kit-enlarge').setAttribute('aria-expanded', 'false');
  }
  const figure = named(large);
  if (!figure) return;
  figure.classList.add('kit-large');
  const button = figure.querySelector('.kit-enlarge'), tools = made('div', { className: 'kit-tools' });
  button.setAttribute('aria-expanded', 'true');
  const over = made('img', { className: 'kit-over', alt: '' }), choice = made('select'), wipe = made('input', { type: 'range', min: 0, max: 100, value: cut });
  choice.setAttribute('aria-label', 'stage to compare with');
  wipe.setAttribute('aria-label', 'wipe between the two stages');
  for (const one of figures()) if (one !== figure) choice.append(made('option', { value: one.dataset.stage, textContent: one.dataset.title }));
  if (!named(other) || other === large) other = named('Truth') && large !== 'Truth' ? 'Truth' : 'Picture';
  choice.value = other;
  const cutNow = () => { over.src = named(other).querySelector('img').src; over.style.clipPath = `inset(0 0 0 ${cut}%)`; };
  choice.onchange = () => { other = choice.value; if (cut > 90) { cut = 50; wipe.value = cut; } cutNow(); };
  wipe.oninput = () => { cut = Number(wipe.value); cutNow(); };
  const label = made('label', { textContent: 'wipe to ' });
  label.append(choice);
  const read = made('output', { className: 'kit-reading', textContent: 'point at the picture to read it; arrow keys: the next stage; Escape: back' });
  const close = made('button', { type: 'button', className: 'kit-close', textContent: 'back to the strip' });
  close.onclick = () => { const stage = large; large = null; draw(); named(stage)?.querySelector('.kit-enlarge').focus(); };
  tools.append(label, wipe, read, close);
  button.append(over);
  button.after(tools);
  cutNow();
}

function pixels(address) {
  if (planes.size > 40) planes.clear();
  if (!planes.has(address)) planes.set(address, new Promise(done => {
    const picture = new Image();
    picture.onload = () => {
      const canvas = made('canvas', { width: picture.width, height: picture.height }), context = canvas.getContext('2d', { willReadFrequently: true });
      context.drawImage(picture, 0, 0);
      done({ width: picture.width, height: picture.height, levels: context.getImageData(0, 0, picture.width, picture.height).data });
    };
    picture.src = address;
  }));
  return planes.get(address);
}

async function read(figure, across, down) {
  const { numbers, heat } = JSON.parse(element.querySelector('[data-names]').dataset.names);
  const address = figure.dataset.read || figure.dataset.labels, title = figure.dataset.title;
  if (!address) return title;
  const { width, height, levels } = await pixels(address);
  const level = levels[4 * (Math.min(height - 1, Math.floor(down * height)) * width + Math.min(width - 1, Math.floor(across * width)))];
  return `${title}: ${figure.dataset.read ? `${heat} ${(level / 255).toFixed(2)}` : numbers[level] ?? `number ${level}`}`;
}

element.addEventListener('click', event => {
  const button = event.target.closest('.kit-enlarge');
  if (!button) return;
  const stage = button.closest('figure').dataset.stage;
  large = large === stage ? null : stage;
  draw();
  if (large) button.closest('figure').scrollIntoView({ block: 'nearest' });
});

element.addEventListener('keydown', event => {
  if (!large || event.target.matches('input, select')) return;
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key], all = figures();
  if (event.key === 'Escape') { element.querySelector('.kit-close').click(); return; }
  if (!step) return;
  event.preventDefault();
  large = all[(all.findIndex(figure => figure.dataset.stage === large) + step + all.length) % all.length].dataset.stage;
  draw();
  named(large).querySelector('.kit-enlarge').focus();
});

element.addEventListener('pointermove', async event => {
  const figure = event.target.closest('.kit-large'), button = event.target.closest('.kit-enlarge');
  if (!figure || !button) return;
  const box = button.getBoundingClientRect(), across = (event.clientX - box.left) / box.width, down = (event.clientY - box.top) / box.height;
  const said = await read(100 * across > cut ? named(other) : figure, across, down), output = figure.querySelector('.kit-reading');
  if (output) output.textContent = said;
});

watch('value', () => {
  draw();
  const strip = element.querySelector('[data-address]');
  if (strip) history.replaceState(null, '', strip.dataset.address || location.pathname);  // what is seen can be sent as a link
});
