import { readFile, writeFile } from 'node:fs/promises';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { ratioOf, rounded, spreadOf, type Goal, type Options, type Runs } from './measurement.ts';
import { barsSvg, linesSvg } from './plot.ts';

export interface Result {
  readonly measurement: string;
  readonly about: string;
  readonly options: Options;
  readonly runs: readonly Runs[];
  readonly goals: readonly Goal[];
}

/** The machine in a line; figures of different machines do not compare. */
export async function describeMachine(): Promise<string> {
  const [load = ''] = (await readFile('/proc/loadavg', 'utf8')).split(' ');
  const memory = `${Math.round(totalmem() / 1e9)} GB`;
  return `${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}, ${memory}, Node ${process.version}, load before: ${load}`;
}

const figuresOf = (runs: readonly Runs[]) => [...new Set(runs.flatMap((one) => one.figures.flatMap(Object.keys)))];
const named = (runs: readonly Runs[], name: string | undefined) => runs.find(({ contender }) => contender === name);

/** A goal in words, what was reached (the median), and whether it was. */
function judge(goal: Goal, runs: readonly Runs[]) {
  const ours = named(runs, goal.of);
  const theirs = named(runs, goal.against);
  const values = ours?.figures.flatMap((figures) => figures[goal.figure] ?? []) ?? [];
  const spread = ours && theirs ? ratioOf(goal.figure, ours, theirs) : spreadOf(values);
  const bound = goal.atLeast === undefined ? `at most ${goal.atMost ?? ''}` : `at least ${goal.atLeast}`;
  const wanted = goal.against === undefined ? bound : `${bound} × ${goal.against}`;
  const reached = spread?.median;
  const isMet = reached !== undefined && reached >= (goal.atLeast ?? -Infinity) && reached <= (goal.atMost ?? Infinity);
  return { ...goal, wanted, spread, reached: reached === undefined ? 'nothing' : rounded(reached), isMet };
}

function aligned(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]) =>
    `| ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`;
  const [head = [], ...body] = rows;
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...body.map(line)].join('\n');
}

/** What was found, as Markdown tables: each figure's min, median and max, then what was to be reached. */
export function tableOf({ runs, goals }: Result): string {
  const rows = figuresOf(runs).flatMap((figure) =>
    runs.map((one) => {
      const spread = spreadOf(one.figures.flatMap((figures) => figures[figure] ?? []));
      const cells = spread === undefined ? ['', '', ''] : [spread.min, spread.median, spread.max].map(rounded);
      return [figure, one.contender, ...cells, String(one.figures.length)];
    }),
  );
  const table = aligned([['figure', 'of', 'min', 'median', 'max', 'rounds'], ...rows.filter((row) => row[3] !== '')]);
  if (goals.length === 0) return table;
  const judged = goals.map((goal) => judge(goal, runs));
  const reached = judged.map(({ figure, of, wanted, spread, isMet }) => {
    const cells = spread === undefined ? ['', '', ''] : [spread.min, spread.median, spread.max].map(rounded);
    return [figure, of, wanted, ...cells, isMet ? 'yes' : 'no'];
  });
  return `${table}\n\n${aligned([['goal', 'of', 'wanted', 'min', 'median', 'max', 'met'], ...reached])}`;
}

/** Writes `<measurement>.json`, `.md` and `.svg`. */
export async function save(directory: string, result: Result): Promise<void> {
  const path = (extension: string) => join(directory, `${result.measurement}.${extension}`);
  const { measurement, about, runs, goals, options } = result;
  const { quick, rounds } = options;
  const judged = goals.map((goal) => judge(goal, runs));
  const machine = await describeMachine();
  const data = { measurement, about, machine, at: new Date().toISOString(), quick, rounds, goals: judged, runs };
  const series = Object.assign({}, ...runs.flatMap((one) => one.series.slice(-1)));
  const bars = figuresOf(runs).map((figure) => ({
    title: figure,
    bars: runs.flatMap(({ contender, figures }) => {
      const spread = spreadOf(figures.flatMap((one) => one[figure] ?? []));
      return spread === undefined ? [] : [{ label: contender, ...spread }];
    }),
  }));
  // A series of points is one line.
  const json = JSON.stringify(data, null, 2).replace(/\[(?:\s*\[[^[\]]*\],?)+\s*\]/g, (points) =>
    points.replace(/\s+/g, ''),
  );
  await writeFile(path('json'), `${json}\n`);
  await writeFile(path('md'), `${about}\n\n${machine}\n\n${tableOf(result)}\n`);
  await writeFile(path('svg'), Object.keys(series).length > 0 ? linesSvg(about, series) : barsSvg(about, bars));
}
