import type { QueueCounts, Snapshot } from './snapshot.ts';

type RedisPart = NonNullable<Snapshot['redis']>;
type CassandraPart = NonNullable<Snapshot['cassandra']>;

/** Text that is HTML already. Whatever else goes into a page is escaped: names of files and reasons are hostile. */
interface Html {
  readonly html: string;
}
type Content = string | number | Html | readonly Html[];

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
          <p class="note">${timeOf(at)} UTC · ${answers('Redis', redis)} · ${answers('Cassandra', cassandra)}</p>
          <div class="cards">${redisCards(redis)}${cassandraCards(cassandra)}</div>
          ${redis === null ? away('The queues are', 'Redis') : redisTables(redis)}
          ${cassandra === null ? away('The summaries are', 'Cassandra') : summaryTable(cassandra)}
        </main>
      </body>
    </html>`.html;
}

function answers(store: string, part: object | null): Html {
  return part === null
    ? markup`<strong class="bad">${store} is away</strong>`
    : markup`<span class="good">${store} answers</span>`;
}

function away(what: string, store: string): Html {
  return markup`<p class="bad">${what} not known: ${store} does not answer.</p>`;
}

function card(label: string, value: string | number, bad = false): Html {
  return markup`<div class="card"><b class="${bad ? 'bad' : ''}">${value}</b><span>${label}</span></div>`;
}

function redisCards(redis: RedisPart | null): Html[] {
  const ingest = redis?.queues['ingest'];
  const letters = redis?.deadLetters.count ?? '–';
  const processors = redis?.workers.length ?? '–';
  return [
    card('files in the last minute', redis?.filesPerMinute ?? '–'),
    card('files waiting', ingest === undefined ? '–' : ingest.waiting + ingest.backlog + ingest.delayed),
    card('oldest waiting', redis === null ? '–' : duration(redis.oldestWaitingSeconds)),
    card('dead letters', letters, letters !== 0 && letters !== '–'),
    card('processors alive', processors, processors === 0),
  ];
}

function cassandraCards(cassandra: CassandraPart | null): Html[] {
  if (cassandra === null) return [card('summaries are behind', '–'), card('watermark, UTC', '–')];
  return [
    card('summaries are behind', duration(cassandra.lagSeconds)),
    card('watermark, UTC', timeOf(cassandra.watermark).slice(11)),
  ];
}

function redisTables({ queues, newestFiles, deadLetters }: RedisPart): Html {
  return markup`
    <h2>Queues</h2>
    ${table(
      ['Queue', '#Waiting', '#Backlog', '#Active', '#Delayed', '#Done, kept', '#Failed'],
      Object.entries(queues).map(([name, counts]) => queueRow(name, counts)),
      'No queue.',
    )}
    <h2>Newest files</h2>
    ${table(
      ['File', 'State', '#Records', '#Rejected', '#Took', 'When, UTC'],
      newestFiles.map(
        ({ id, name, state, records, rejected, ms, at }) => markup`<tr>
          <td class="name"><a href="/board/queue/ingest/${encodeURIComponent(id)}">${name}</a></td><td>${state}</td>${number(records)}
          <td class="number ${rejected > 0 ? 'bad' : ''}">${rejected}</td>
          <td class="number">${ms} ms</td><td class="time">${timeOf(at)}</td>
        </tr>`,
      ),
      'No file yet.',
    )}
    <h2>Dead letters</h2>
    ${table(
      ['File', 'Reason', 'When, UTC'],
      deadLetters.newest.map(
        ({ id, name, reason, at }) => markup`<tr>
          <td class="name"><a href="/board/queue/dead-letter/${encodeURIComponent(id)}">${name}</a></td>
          <td class="name">${reason}</td><td class="time">${timeOf(at)}</td>
        </tr>`,
      ),
      'None: every file was loaded.',
    )}
    ${
      deadLetters.count > deadLetters.newest.length
        ? markup`<p><a href="/board/queue/dead-letter?status=failed">All ${deadLetters.count} dead letters</a></p>`
        : ''
    }
  `;
}

function queueRow(name: string, { paused, waiting, waitingChildren, ...counts }: QueueCounts): Html {
  const isBad = name === 'dead-letter' && counts.failed > 0;
  return markup`<tr>
    <td><a href="/board/queue/${name}">${name}</a>${paused ? markup` <strong class="bad">paused</strong>` : ''}</td>
    ${number(waiting + waitingChildren)}${number(counts.backlog)}${number(counts.active)}${number(counts.delayed)}
    ${number(counts.completed)}
    <td class="number ${isBad ? 'bad' : ''}">${counts.failed}</td>
  </tr>`;
}

function summaryTable({ today, yesterday }: CassandraPart): Html {
  return markup`
    <h2>Daily summaries</h2>
    ${table(
      ['Day, UTC', '#Vehicles', '#Events'],
      [today, yesterday].map(
        ({ day, vehicles, events }) => markup`<tr><td>${day}</td>${number(vehicles)}${number(events)}</tr>`,
      ),
      '',
    )}
  `;
}

/** @param columns headings; a # before one is for numbers, to the right */
function table(columns: readonly string[], rows: readonly Html[], whenEmpty: string): Html {
  const heads = columns.map((column) =>
    column.startsWith('#') ? markup`<th class="number">${column.slice(1)}</th>` : markup`<th>${column}</th>`,
  );
  const body =
    rows.length > 0 ? rows : [markup`<tr><td class="empty" colspan="${columns.length}">${whenEmpty}</td></tr>`];
  return markup`<div class="table"><table><thead><tr>${heads}</tr></thead><tbody>${body}</tbody></table></div>`;
}

function number(value: number): Html {
  return markup`<td class="number">${value}</td>`;
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
