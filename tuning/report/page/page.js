'use strict';
(() => {
  const $ = (all, root = document) => [...root.querySelectorAll(all)];
  const body = document.body, tip = document.getElementById('tip');

  // A trial is highlighted everywhere at once: its elements have its name in data-trial.
  const elements = new Map();
  for (const element of $('[data-trial]')) {
    const name = element.dataset.trial;
    if (!elements.has(name)) elements.set(name, []);
    elements.get(name).push(element);
  }
  let shown = null, pinned = null;
  const mark = (name) => {
    if (name === shown) return;
    for (const element of elements.get(shown) ?? []) element.classList.remove('on');
    for (const element of elements.get(name) ?? []) element.classList.add('on');
    shown = name;
    body.classList.toggle('picking', Boolean(name));
  };
  const pin = (name) => { pinned = name === pinned ? null : name; mark(pinned); };
  const nameAt = (target) => target.closest?.('[data-trial]')?.dataset.trial ?? null;

  // The browser's own tooltips are slow, and there are none on touch screens: their text moves into #tip.
  for (const title of $('svg title')) {
    title.parentNode.dataset.tip = title.textContent;
    title.remove();
  }
  const showTip = (event) => {
    const source = event.target.closest?.('[data-tip]');
    tip.hidden = !source;
    if (!source) return;
    tip.textContent = source.dataset.tip;
    const box = tip.getBoundingClientRect(), gap = 14;
    const left = event.clientX + gap + box.width > innerWidth ? event.clientX - gap - box.width : event.clientX + gap;
    const top = event.clientY + gap + box.height > innerHeight ? event.clientY - gap - box.height : event.clientY + gap;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, top)}px`;
  };
  document.addEventListener('pointermove', showTip);
  document.addEventListener('pointerover', (event) => { if (!brushing) mark(nameAt(event.target) ?? pinned); });
  document.addEventListener('focusin', (event) => mark(nameAt(event.target) ?? pinned));
  document.addEventListener('click', (event) => {
    if (event.target.closest('a, button, summary, input, label, thead, .brush')) return;
    if (String(getSelection())) return;
    const name = nameAt(event.target);
    if (name || pinned) pin(name);
    showTip(event);
  });
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') { pinned = null; mark(null); tip.hidden = true; ranges.clear(); narrow(); }
    if (event.key === 'Enter' && event.target.matches('.trials tr')) pin(nameAt(event.target));
  });
  document.addEventListener('scroll', () => { tip.hidden = true; }, { passive: true });

  // Ranges drawn on the upright axes keep only the trials that are in all of them.
  const ranges = new Map();
  let brushing = null;
  const lines = $('.parallel .t').map((line) => [line.dataset.trial, (line.dataset.at ?? '').split(' ')]);
  const narrow = () => {
    const kept = new Set(lines.filter(([, at]) => [...ranges].every(([axis, { low, high }]) =>
      at[axis] !== '' && at[axis] !== undefined && +at[axis] >= low && +at[axis] <= high)).map(([name]) => name));
    body.classList.toggle('narrowed', ranges.size > 0);
    for (const [name, all] of elements)
      for (const element of all) element.classList.toggle('off', ranges.size > 0 && !kept.has(name));
    for (const range of $('.range')) if (!ranges.has(+range.parentNode.dataset.axis)) range.remove();
    filter();
  };
  const heightAt = (event, svg) =>
    new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).y;
  for (const handle of $('.parallel .brush')) {
    const axisGroup = handle.parentNode, svg = handle.ownerSVGElement, axis = +axisGroup.dataset.axis;
    handle.addEventListener('pointerdown', (event) => {
      brushing = { from: heightAt(event, svg) };
      handle.setPointerCapture(event.pointerId);
      ranges.delete(axis);
    });
    handle.addEventListener('pointermove', (event) => {
      if (!brushing) return;
      const ends = [brushing.from, heightAt(event, svg)].sort((a, b) => a - b);
      if (ends[1] - ends[0] < 4) return;
      ranges.set(axis, { low: ends[0], high: ends[1] });
      let range = axisGroup.querySelector('.range');
      if (!range) {
        range = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
        range.classList.add('range');
        range.setAttribute('width', 12);
        range.setAttribute('x', +handle.getAttribute('x') + 10);
        axisGroup.append(range);
      }
      range.setAttribute('y', ends[0]);
      range.setAttribute('height', ends[1] - ends[0]);
      narrow();
    });
    for (const end of ['pointerup', 'pointercancel'])
      handle.addEventListener(end, () => { brushing = null; narrow(); });
  }

  // The table is sorted by any column, missing values last, and filtered by state and by the ranges above.
  const table = document.querySelector('.trials'), states = $('.filters button');
  let state = 'all';
  const filter = () => {
    for (const row of $('.trials tbody'))
      row.hidden = (state !== 'all' && row.dataset.state !== state) || row.classList.contains('off');
  };
  for (const button of states) {
    button.hidden = false;
    button.addEventListener('click', () => {
      state = button.dataset.state;
      for (const other of states) other.setAttribute('aria-pressed', String(other === button));
      filter();
    });
  }
  const sort = (head, column) => {
    const up = head.getAttribute('aria-sort') !== 'ascending';
    for (const other of $('th', table.tHead)) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    const key = (row) => row.rows[0].cells[column].dataset.v ?? '';
    const rows = [...table.tBodies].map((row) => [row, key(row)]);
    const numeric = rows.every(([, value]) => value === '' || !Number.isNaN(Number(value)));
    const compare = (a, b) => (numeric ? a - b : a.localeCompare(b, 'en', { numeric: true }));
    rows.sort(([, a], [, b]) => (a === '') - (b === '') || (up ? 1 : -1) * compare(a, b));
    table.append(...rows.map(([row]) => row));
  };
  $('.trials thead th.sorts').forEach((head) => {
    head.tabIndex = 0;
    head.addEventListener('click', () => sort(head, head.cellIndex));
    head.addEventListener('keydown', (event) => { if (event.key === 'Enter') sort(head, head.cellIndex); });
  });

  for (const button of $('.copy button')) {
    button.hidden = false;
    button.addEventListener('click', async () => {
      const code = button.parentNode.querySelector('code');
      try { await navigator.clipboard.writeText(code.textContent); button.textContent = 'Copied'; }
      catch { getSelection().selectAllChildren(code); button.textContent = 'Press Ctrl+C'; }
      setTimeout(() => { button.textContent = 'Copy'; }, 2000);
    });
  }

  const links = new Map($('nav a').map((link) => [link.hash.slice(1), link]));
  const watch = new IntersectionObserver((seen) => {
    for (const each of seen) links.get(each.target.id)?.classList.toggle('here', each.isIntersecting);
  }, { rootMargin: '-20% 0px -70% 0px' });
  for (const section of $('section[id]')) watch.observe(section);
})();
