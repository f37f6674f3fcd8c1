/** The style of the page. Colours have a light and a dark form; tables scroll sideways on a phone. */
export const PAGE_CSS = `
:root {
  color-scheme: light dark;
  --back: light-dark(#f6f7f9, #14171c);
  --card: light-dark(#ffffff, #1d2128);
  --line: light-dark(#dfe3e8, #323844);
  --text: light-dark(#1c2129, #e6e9ee);
  --dim: light-dark(#5d6675, #9aa4b2);
  --link: light-dark(#0b5fc4, #7db4ff);
  --bad: light-dark(#b3261e, #ff8a80);
  --good: light-dark(#1a7f37, #5fd382);
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.25rem 1rem 3rem; max-width: 72rem;
  background: var(--back); color: var(--text);
  font: 15px/1.45 system-ui, sans-serif; font-variant-numeric: tabular-nums;
}
a { color: var(--link); }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: .25rem 1.25rem; }
h1 { font-size: 1.35rem; margin: 0; }
h2 { font-size: 1rem; margin: 1.75rem 0 .5rem; }
nav { display: flex; gap: 1rem; }
.stale main { opacity: .5; }
main > p { color: var(--dim); margin: .25rem 0 1rem; }
.bad { color: var(--bad); }
.good { color: var(--good); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.25rem, 1fr)); gap: .75rem; }
.card, .table { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
.card { padding: .6rem .8rem; }
.card b { display: block; font-size: 1.4rem; font-weight: 600; overflow-wrap: anywhere; }
.card span { color: var(--dim); font-size: .85rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .4rem .8rem; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--dim); font-weight: 500; font-size: .85rem; white-space: nowrap; }
.number { text-align: right; white-space: nowrap; }
td:not(.number) { overflow-wrap: anywhere; min-width: 7rem; }
@media (max-width: 40rem) { th, td { padding: .35rem .45rem; } }
`;

/** Fetches the page again every few seconds and exchanges what changed, so that nothing flickers or scrolls. */
export const PAGE_SCRIPT = `
async function refresh() {
  if (!document.hidden) {
    try {
      const response = await fetch(location.pathname, { headers: { accept: 'text/html' } });
      if (!response.ok) throw new Error(response.statusText);
      const page = new DOMParser().parseFromString(await response.text(), 'text/html');
      document.querySelector('main').replaceWith(page.querySelector('main'));
      document.body.className = '';
    } catch {
      document.body.className = 'stale';
    }
  }
  setTimeout(refresh, 3000);
}
setTimeout(refresh, 3000);
`;
