import { readFile, writeFile } from 'node:fs/promises';
import { z } from 'zod';

/** What runs have shown; several are added up in one file. Times in ms. */
const figuresSchema = z.object({
  seeds: z.array(z.number()),
  rounds: z.number(),
  faults: z.number(),
  files: z.number(),
  records: z.number(),
  lost: z.number(),
  doubled: z.number(),
  wrong: z.number(),
  summariesWrong: z.number(),
  /** Dead letters of files that are right: their processors were killed again and again. Loaded when sent back. */
  givenUp: z.number(),
  cassandraKills: z.number(),
  ledgerRowsLost: z.number(),
  eventRowsLost: z.number(),
  longestStallMs: z.number(),
  longestQuietMs: z.number(),
  seconds: z.number(),
  recoveries: z.record(z.string(), z.array(z.number())),
});
export type Figures = z.infer<typeof figuresSchema>;

const NOTHING: Figures = {
  ...{ seeds: [], rounds: 0, faults: 0, files: 0, records: 0, lost: 0, doubled: 0, wrong: 0, summariesWrong: 0 },
  ...{ givenUp: 0, cassandraKills: 0, ledgerRowsLost: 0, eventRowsLost: 0 },
  ...{ longestStallMs: 0, longestQuietMs: 0, seconds: 0, recoveries: {} },
};

function sum(a: Figures, b: Figures): Figures {
  const recoveries = { ...a.recoveries };
  for (const [fault, times] of Object.entries(b.recoveries))
    recoveries[fault] = [...(recoveries[fault] ?? []), ...times];
  const added = Object.keys(NOTHING).flatMap((key) => {
    const [x, y] = [a[key as keyof Figures], b[key as keyof Figures]];
    if (typeof x !== 'number' || typeof y !== 'number') return [];
    return [[key, key.startsWith('longest') ? Math.max(x, y) : x + y] as const];
  });
  return figuresSchema.parse({ ...Object.fromEntries(added), seeds: [...a.seeds, ...b.seeds], recoveries });
}

/** Figures of earlier runs; none when there is no such file. */
export async function readFigures(path: string): Promise<Figures> {
  const json = await readFile(path, 'utf8').catch(() => undefined);
  return json === undefined ? NOTHING : figuresSchema.parse(JSON.parse(json));
}

/** Adds a run's figures to those in the file. */
export async function addFigures(path: string, run: Figures): Promise<Figures> {
  const total = sum(await readFigures(path), run);
  await writeFile(path, `${JSON.stringify(total, null, 1)}\n`);
  return total;
}

const seconds = (ms: number) => (ms / 1_000).toFixed(1);

/** One table, in Markdown, of all figures and one of the recovery times of each kind of fault. */
export function tablesOf({ recoveries, seeds, ...totals }: Figures): string {
  const rows: [string, string | number][] = [
    ['seeds', seeds.join(', ')],
    ['rounds', totals.rounds],
    ['faults', totals.faults],
    ['files', totals.files],
    ['records', totals.records],
    ['records lost', totals.lost],
    ['records doubled', totals.doubled],
    ['rows with a wrong value', totals.wrong],
    ['summaries wrong', totals.summariesWrong],
    ['good files that needed a Retry by hand', totals.givenUp],
    ['kills of Cassandra', totals.cassandraKills],
    ['acknowledged ledger rows that it forgot, all loaded again', totals.ledgerRowsLost],
    ['acknowledged events that it forgot, all loaded again', totals.eventRowsLost],
    ['longest stall: files wait and none is loaded', `${seconds(totals.longestStallMs)} s`],
    ['longest time until all was right after a round', `${seconds(totals.longestQuietMs)} s`],
    ['time', `${(totals.seconds / 60).toFixed(0)} min`],
  ];
  const faults = Object.entries(recoveries)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([fault, times]) => {
      const ordered = times.toSorted((a, b) => a - b);
      const share = (part: number) => seconds(ordered[Math.ceil(part * ordered.length) - 1] ?? 0);
      return `| ${fault} | ${ordered.length} | ${share(0.5)} | ${share(0.95)} | ${share(1)} |`;
    });
  return [
    '| what | |',
    '| --- | ---: |',
    ...rows.map(([what, value]) => `| ${what} | ${value} |`),
    '',
    '| fault | times | recovery p50, s | p95, s | max, s |',
    '| --- | ---: | ---: | ---: | ---: |',
    ...faults,
  ].join('\n');
}
