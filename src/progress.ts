import ora from 'ora';

/** What a person sees of the steps that take a while: a spinner at a terminal, plain lines elsewhere. */
export interface Progress {
  /** Shows `label` while `work` runs; steps may overlap. `done` makes the line that stays. */
  step<T>(label: string, work: () => Promise<T>, done: (result: T) => string): Promise<T>;
  say(line: string): void;
}

/** Writes to standard error, so that standard output stays clean. */
export function createProgress(): Progress {
  const spinner = ora({ stream: process.stderr, discardStdin: false });
  const running: string[] = [];

  function print(symbol: string, text: string): void {
    spinner.stopAndPersist({ symbol, text });
    refresh();
  }

  function refresh(): void {
    if (!process.stderr.isTTY) return;
    if (running.length === 0) spinner.stop();
    else spinner.start(running.join(', '));
  }

  return {
    say: (line) => print('!', line),
    step: async (label, work, done) => {
      running.push(label);
      if (process.stderr.isTTY) refresh();
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
