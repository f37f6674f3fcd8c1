import ora from 'ora';

/** What a person sees of the steps that take a while: a spinner at a terminal, plain lines elsewhere. */
export interface Progress {
  /** Shows `label` while `work` runs; steps may overlap. `done` makes the line that stays. */
  step<T>(label: string, work: () => Promise<T>, done: (result: T) => string): Promise<T>;
  say(line: string): void;
}

/** Writes to standard error, so that standard output stays clean. */
export function createProgress(): Progress {
  // A terminal that does not know its width (0 columns) makes the spinner hang.
  const isLive = process.stderr.isTTY && process.stderr.columns > 0;
  const spinner = ora({ stream: process.stderr, isEnabled: isLive, discardStdin: false });
  const running: string[] = [];

  function print(symbol: string, text: string): void {
    spinner.stopAndPersist({ symbol, text });
    refresh();
  }

  function refresh(): void {
    if (!isLive) return;
    if (running.length === 0) spinner.stop();
    else spinner.start(running.join(', '));
  }

  return {
    say: (line) => print('!', line),
    step: async (label, work, done) => {
      running.push(label);
      if (isLive) refresh();
      else print('…', label);
      const since = performance.now();
      const finish = (symbol: string, text: string) => {
        running.splice(running.indexOf(label), 1);
        print(symbol, text);
      };
      try {
        const result = await work();
        finish('✔', `${done(result)} (${((performance.now() - since) / 1_000).toFixed(1)} s)`);
        return result;
      } catch (error) {
        finish('✖', label);
        throw error;
      }
    },
  };
}
