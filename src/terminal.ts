import { Presets, SingleBar } from 'cli-progress';
import { oraPromise } from 'ora';

/** Shows `text` on standard error while `work` runs: a spinner at a terminal, a line elsewhere. `done` is what stays. */
export function step<T>(text: string, work: () => Promise<T>, done: (result: T) => string): Promise<T> {
  // A terminal that does not know its width (0 columns) makes the spinner hang.
  const isEnabled = process.stderr.isTTY && process.stderr.columns > 0;
  return oraPromise(work(), { text, successText: done, isEnabled, discardStdin: false });
}

/** A progress bar on standard error; `text` names what is counted and, in braces, what `values` hold. */
export function startBar(total: number, text: string, values: Readonly<Record<string, number>>): SingleBar {
  const format = `{bar} {percentage}% {value} of {total} ${text}`;
  const bar = new SingleBar({ format, stream: process.stderr }, Presets.shades_classic);
  bar.start(total, 0, values);
  return bar;
}

/** Prints what a command has found on standard output: as a line of JSON, or as text for a person. */
export function print(json: boolean, data: unknown, text: string): void {
  process.stdout.write(`${json ? JSON.stringify(data) : text}\n`);
}

/** A text for the terminal, with its control characters spelled out: a hostile file name must not steer it, nor turn a line around. */
export function printable(text: string): string {
  const spelled = (character: string) => {
    const digits = character.charCodeAt(0).toString(16);
    return digits.length > 2 ? `\\u${digits.padStart(4, '0')}` : `\\x${digits.padStart(2, '0')}`;
  };
  return text.replace(/[\p{Cc}\p{Bidi_Control}]/gu, spelled);
}
