import type { Stores } from './stores.ts';

/** What one run found, by figure; the name of a figure ends with its unit, as in `drain, records/s`. */
export type Figures = Readonly<Record<string, number>>;

/** Numbers over time, for the plot: seconds since the start and the value. */
export type Series = Readonly<Record<string, readonly (readonly [seconds: number, value: number])[]>>;

export interface Options {
  readonly quick: boolean;
  readonly withSpark: boolean;
  /** Counted rounds, unless a measurement needs to be different. */
  readonly rounds: number;
  /** Of the soak. */
  readonly minutes: number;
  readonly processors: readonly number[];
  /** Paths of other Nodes that drain, too. */
  readonly nodes: readonly string[];
  readonly say: (line: string) => void;
}

/** One of those who are compared. A run that throws does not count. */
export interface Contender {
  readonly name: string;
  run(round: number): Promise<{ figures: Figures; series?: Series }>;
}

/** A figure of the first contender that is to reach something: a number, or a multiple of another's in the same round. */
export interface Goal {
  readonly figure: string;
  readonly of: string;
  readonly against?: string;
  readonly atLeast?: number;
  readonly atMost?: number;
}

/** What is compared, in turns. */
export interface Plan {
  readonly contenders: readonly Contender[];
  readonly goals?: readonly Goal[];
  /** Rounds that are not counted, first; 1 unless said otherwise. */
  readonly warmUps?: number;
  readonly rounds?: number;
  /** Releases what the contenders share. */
  readonly close?: () => Promise<void>;
}

export interface Measurement {
  readonly name: string;
  /** What is measured, in a sentence. */
  readonly about: string;
  plan(stores: Stores, options: Options): Plan | Promise<Plan>;
}

/** Every counted run of one contender. */
export interface Runs {
  readonly contender: string;
  readonly figures: Figures[];
  readonly series: Series[];
  readonly failures: string[];
}

/** Runs the contenders in turns, A B A B, first the warm-up; `onRound` gets all runs so far after each counted round. */
export async function runPlan(
  { contenders, warmUps = 1, rounds }: Plan,
  options: Options,
  onRound: (runs: readonly Runs[]) => Promise<void>,
): Promise<Runs[]> {
  const all = contenders.map(({ name }): Runs => ({ contender: name, figures: [], series: [], failures: [] }));
  for (let round = 0; round < warmUps + (rounds ?? options.rounds); round += 1) {
    for (const [index, contender] of contenders.entries()) {
      const counted = round >= warmUps ? all[index] : undefined;
      const label = counted === undefined ? 'warm-up' : `round ${round - warmUps + 1}`;
      try {
        const { figures, series } = await contender.run(round);
        counted?.figures.push(figures);
        if (series !== undefined) counted?.series.push(series);
        const said = Object.entries(figures).map(([figure, value]) => `${figure} ${rounded(value)}`);
        options.say(`  ${label}, ${contender.name}: ${said.join('; ')}`);
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        all[index]?.failures.push(`${label}: ${reason}`);
        options.say(`  ${label}, ${contender.name}: DOES NOT COUNT: ${reason}`);
      }
    }
    if (round >= warmUps) await onRound(all);
  }
  return all;
}

/** With three digits, or none after the point. */
export function rounded(value: number): string {
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toFixed(digits).replace(/\B(?=(\d{3})+(?!\d))/g, ',');
}

export interface Spread {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

/** The value below which the share (0 to 1) of the numbers lies, by the nearest rank. */
export function percentile(numbers: readonly number[], share: number): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? NaN;
}

export function spreadOf(numbers: readonly number[]): Spread | undefined {
  if (numbers.length === 0) return undefined;
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.slice((sorted.length - 1) >> 1, (sorted.length >> 1) + 1);
  const median = middle.reduce((sum, number) => sum + number, 0) / middle.length;
  return { min: sorted.at(0) ?? NaN, median, max: sorted.at(-1) ?? NaN };
}

/** The ratio of two contenders' figure, round by round, so that it holds when the machine's speed drifts. */
export function ratioOf(figure: string, ours: Runs, theirs: Runs): Spread | undefined {
  const ratios = ours.figures.map(
    (figures, round) => (figures[figure] ?? NaN) / (theirs.figures[round]?.[figure] ?? NaN),
  );
  return spreadOf(ratios.filter((ratio) => Number.isFinite(ratio)));
}
