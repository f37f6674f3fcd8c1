import { oraPromise } from 'ora';

/** Shows `text` on standard error while `work` runs: a spinner at a terminal, a line elsewhere. `done` is what stays. */
export function step<T>(text: string, work: () => Promise<T>, done: (result: T) => string): Promise<T> {
  // A terminal that does not know its width (0 columns) makes the spinner hang.
  const isEnabled = process.stderr.isTTY && process.stderr.columns > 0;
  return oraPromise(work(), { text, successText: done, isEnabled, discardStdin: false });
}
