import type { Snapshot } from './snapshot.ts';

/** A cell of a table; an object is a link into Bull Board. */
type Cell = string | number | boolean | { readonly path: string; readonly text: string };

/** ISO 8601 in UTC. */
const TIME = /^\d{4}-\d\d-\d\dT[\d:.]+Z$/;

const STYLE = `
  :root { color-scheme: light dark }
  body { max-width: 72rem; margin: auto; padding: 1rem; font: 15px/1.45 system-ui, sans-serif }
  section { overflow-x: auto } table { border-collapse: collapse; width: 100% }
  th, td { padding: .35rem .6rem; border-bottom: 1px solid #8886; text-align: left; vertical-align: top }
  td { overflow-wrap: anywhere; min-width: 5rem; font-variant-numeric: tabular-nums }
  td:has(a) { min-width: 11rem } time { white-space: nowrap }
  strong { color: light-dark(#b3261e, #ff8a80) }`;

/** The overview, as a whole document that loads itself anew every few seconds. Times and days are in UTC. */
export function renderPage({ at, redis, cassandra }: Snapshot): string {
  const answers = (store: object | null) => (store === null ? 'is <strong>away</strong>' : 'answers');
  return `<!doctype html>
    <html lang="en">
      <meta charset="utf-8" />
      <meta name="viewport" content="width=device-width, initial-scale=1" />
      <meta http-equiv="refresh" content="5" />
      <title>Vehicle data pipeline</title>
      <link rel="icon" href="/board/static/images/logo.svg" />
      <style>${STYLE}</style>
      <h1>Vehicle data pipeline</h1>
      <p><a href="/board">Bull Board</a> · <a href="/metrics">Metrics</a> · ${at}</p>
      <p>Redis ${answers(redis)} · Cassandra ${answers(cassandra)}</p>
      ${redis === null ? '' : redisTables(redis)}
      ${cassandra === null ? '' : cassandraTables(cassandra)}
    </html>`;
}

function redisTables({ queues, newestFiles, deadLetters, verified, ...rest }: NonNullable<Snapshot['redis']>): string {
  const link = (text: string, path = text) => ({ path, text });
  const counts = Object.entries(queues).map(([name, count]) => ({ queue: link(name), ...count }));
  const files = newestFiles.map(({ id, name, ...result }) => ({ file: link(name, `ingest/${id}`), ...result }));
  const newest = deadLetters.newest.map(({ id, name, ...why }) => ({ file: link(name, `dead-letter/${id}`), ...why }));
  const now = {
    'files in the last minute': rest.filesPerMinute,
    'oldest waiting, s': rest.oldestWaitingSeconds,
    'processors alive': rest.workers.length,
    'dead letters': deadLetters.count,
  };
  return [
    table('Now', [now]),
    table('Queues', counts),
    table('Newest files', files),
    table('Dead letters', newest),
    table('Newest verification', verified),
  ].join('');
}

function cassandraTables({ watermark, lagSeconds, today, yesterday }: NonNullable<Snapshot['cassandra']>): string {
  const days = [today, yesterday].filter((day) => day !== null);
  return table('Summaries', [{ watermark, 'behind, s': lagSeconds }]) + table('Daily summaries', days);
}

function table(title: string, rows: readonly Readonly<Record<string, Cell>>[]): string {
  const heads = Object.keys(rows[0] ?? { none: '' }).map((column) => `<th>${column}`);
  const lines = rows.map((row) => ['<tr>', ...Object.values(row).map((cell) => `<td>${cellText(cell)}`)].join(''));
  return `<h2>${title}</h2><section><table><tr>${heads.join('')}${lines.join('')}</table></section>`;
}

function cellText(cell: Cell): string {
  if (typeof cell === 'number') return cell.toLocaleString('en', { maximumFractionDigits: 1 });
  if (typeof cell === 'string' && TIME.test(cell)) return `<time>${cell}</time>`;
  if (typeof cell !== 'object') return escaped(String(cell));
  return `<a href="/board/queue/${escaped(cell.path)}">${escaped(cell.text)}</a>`;
}

/** Names of files and reasons are hostile. */
function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
