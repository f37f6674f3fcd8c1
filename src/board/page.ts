import type { Snapshot } from './snapshot.ts';

type RedisPart = NonNullable<Snapshot['redis']>;

/** Text that is HTML already. Whatever else goes into a page is escaped: names of files and reasons are hostile. */
interface Html {
  readonly html: string;
}
type Cell = string | number | Html;
type Content = Cell | readonly Html[];

const ESCAPES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

function rendered(content: Content): string {
  if (typeof content === 'string') return content.replace(/[&<>"']/g, (character) => ESCAPES[character] ?? '');
  if (typeof content === 'number') return content.toLocaleString('en');
  return 'html' in content ? content.html : content.map(({ html }) => html).join('');
}

function markup(texts: TemplateStringsArray, ...contents: Content[]): Html {
  return { html: texts.reduce((page, text, index) => page + rendered(contents[index - 1] ?? '') + text) };
}

/** The overview, as a whole document. */
export function renderPage(snapshot: Snapshot): string {
  const { at, redis, cassandra } = snapshot;
  return markup`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>Vehicle data pipeline</title>
        <link rel="icon" href="/board/static/images/logo.svg" />
        <link rel="stylesheet" href="/page.css" />
        <script src="/page.js" defer></script>
      </head>
      <body>
        <header>
          <h1>Vehicle data pipeline</h1>
          <nav><a href="/board">Bull Board</a> <a href="/metrics">Metrics</a></nav>
        </header>
        <main>
          <p>${timeOf(at)} UTC · ${answers('Redis', redis)} · ${answers('Cassandra', cassandra)}</p>
          <div class="cards">${cards(snapshot)}</div>
          ${redis === null ? '' : redisTables(redis)}
          ${
            cassandra === null
              ? ''
              : table(
                  'Daily summaries',
                  ['Day, UTC', 'Vehicles', 'Events'],
                  [cassandra.today, cassandra.yesterday].map(({ day, vehicles, events }) => [day, vehicles, events]),
                )
          }
        </main>
      </body>
    </html>`.html;
}

function answers(store: string, part: object | null): Html {
  return part === null
    ? markup`<strong class="bad">${store} is away, so what it knows is missing here</strong>`
    : markup`<span class="good">${store} answers</span>`;
}

/** One number a card; a dash while its store is away. */
function cards({ redis, cassandra }: Snapshot): Html[] {
  const { waiting = 0, backlog = 0, delayed = 0 } = redis?.queues['ingest'] ?? {};
  const numbers: [string, string | number | null, boolean?][] = [
    ['files in the last minute', redis && redis.filesPerMinute],
    ['files waiting', redis && waiting + backlog + delayed],
    ['oldest waiting', redis && duration(redis.oldestWaitingSeconds)],
    ['dead letters', redis && redis.deadLetters.count, redis !== null && redis.deadLetters.count > 0],
    ['processors alive', redis && redis.workers.length, redis?.workers.length === 0],
    ['summaries are behind', cassandra && duration(cassandra.lagSeconds)],
    ['watermark, UTC', cassandra && timeOf(cassandra.watermark).slice(11)],
  ];
  return numbers.map(
    ([label, value, isBad = false]) =>
      markup`<div class="card"><b class="${isBad ? 'bad' : ''}">${value ?? '–'}</b><span>${label}</span></div>`,
  );
}

function redisTables({ queues, newestFiles, deadLetters }: RedisPart): Html[] {
  const hidden = deadLetters.count - deadLetters.newest.length;
  return [
    table(
      'Queues',
      ['Queue', 'Waiting', 'Backlog', 'Active', 'Delayed', 'Done, kept', 'Failed'],
      Object.entries(queues).map(([name, { paused, waiting, waitingChildren, ...counts }]) => [
        markup`${link(`queue/${name}`, name)}${paused ? markup` <strong class="bad">paused</strong>` : ''}`,
        ...[waiting + waitingChildren, counts.backlog, counts.active, counts.delayed, counts.completed, counts.failed],
      ]),
    ),
    table(
      'Newest files',
      ['File', 'State', 'Records', 'Rejected', 'Took, ms', 'When, UTC'],
      newestFiles.map(({ id, name, state, records, rejected, ms, at }) => [
        link(`queue/ingest/${encodeURIComponent(id)}`, name),
        ...[state, records, rejected, ms, timeOf(at)],
      ]),
    ),
    table(
      'Dead letters',
      ['File', 'Reason', 'When, UTC'],
      deadLetters.newest.map(({ id, name, reason, at }) => [
        link(`queue/dead-letter/${encodeURIComponent(id)}`, name),
        ...[reason, timeOf(at)],
      ]),
    ),
    hidden > 0 ? markup`<p>${link('queue/dead-letter?status=failed', `and ${hidden} more`)}</p>` : markup``,
  ];
}

function link(path: string, text: string): Html {
  return markup`<a href="/board/${path}">${text}</a>`;
}

/** Numbers stand to the right, under their headings. */
function table(title: string, columns: readonly string[], rows: readonly (readonly Cell[])[]): Html {
  const sideOf = (column: number) => (typeof rows[0]?.[column] === 'number' ? 'number' : '');
  const heads = columns.map((column, index) => markup`<th class="${sideOf(index)}">${column}</th>`);
  const lines = rows.map(
    (cells) => markup`<tr>${cells.map((cell, index) => markup`<td class="${sideOf(index)}">${cell}</td>`)}</tr>`,
  );
  const none = markup`<tr><td colspan="${columns.length}">None.</td></tr>`;
  return markup`<h2>${title}</h2><div class="table"><table>
    <thead><tr>${heads}</tr></thead><tbody>${lines.length > 0 ? lines : none}</tbody>
  </table></div>`;
}

/** `2024-05-01 12:00:03` of an ISO time. */
function timeOf(iso: string): string {
  return iso.slice(0, 19).replace('T', ' ');
}

function duration(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3_600)} h` : `${Math.round(seconds / 86_400)} days`;
}
