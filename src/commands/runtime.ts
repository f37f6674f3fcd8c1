import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import type { Shutdown } from '../shutdown.ts';

/** What main hands to every command. A command that returns has ended well; one that throws has failed. */
export interface Runtime {
  readonly config: Config;
  readonly log: Logger;
  /** What the command opens; main releases it whatever happens. */
  readonly shutdown: Shutdown;
}
