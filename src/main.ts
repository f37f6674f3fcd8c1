import { existsSync } from 'node:fs';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { aggregateNow } from './commands/aggregate.ts';
import { backfill } from './commands/backfill.ts';
import { board } from './commands/board.ts';
import { discardFailed, listFailed, retryFailed, showFailed, type Selection } from './commands/failed.ts';
import { generateFiles } from './commands/generate.ts';
import { migrateSchema } from './commands/migrate.ts';
import { processJobs } from './commands/process.ts';
import type { Runtime } from './commands/runtime.ts';
import { services } from './commands/services.ts';
import { start } from './commands/start.ts';
import { showStatus } from './commands/status.ts';
import { watch } from './commands/watch.ts';
import { parseConfig, UsageError, type Config } from './config.ts';
import { findLocalServices } from './local/services.ts';
import { createLog } from './log.ts';
import { createShutdown } from './shutdown.ts';

const FAILED = 1;
const BAD_USAGE = 2;

/** The configuration, with the local stores that run on this machine where the environment points to no others. */
async function readConfig(command: string): Promise<Config> {
  if (existsSync('.env')) process.loadEnvFile('.env');
  const config = parseConfig(process.env);
  if (['start', 'services', 'generate'].includes(command)) return config;
  if (config.REDIS_URL !== undefined && config.CASSANDRA_CONTACT_POINTS !== undefined) return config;
  const local = await findLocalServices(config.LOCAL_DIR);
  return {
    ...config,
    REDIS_URL: config.REDIS_URL ?? local?.redisUrl,
    ...(config.CASSANDRA_CONTACT_POINTS === undefined && local?.cassandra !== undefined
      ? {
          CASSANDRA_CONTACT_POINTS: [local.cassandra.contactPoint],
          CASSANDRA_PORT: local.cassandra.port,
          CASSANDRA_LOCAL_DATACENTER: local.cassandra.datacenter,
        }
      : {}),
  };
}

/** Runs one command: environment in, signals turned into the wish to stop, everything released, exit code out. */
async function runCommand(name: string, command: (runtime: Runtime) => Promise<void>): Promise<void> {
  let config: Config;
  try {
    config = await readConfig(name);
  } catch (error) {
    fail(error);
    process.exit(BAD_USAGE);
  }
  const log = createLog(config, name);
  const shutdown = createShutdown(log);
  const onSignal = () => {
    if (shutdown.signal.aborted) process.exit(FAILED);
    shutdown.request();
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  // `pipeline start` keeps a channel to its roles: when it is gone, so are they.
  process.on('disconnect', () => shutdown.request());
  process.on('unhandledRejection', (error) => {
    log.fatal({ err: error }, 'a rejection that nobody handled');
    process.exit(FAILED);
  });

  let code = 0;
  try {
    await command({ config, log, shutdown });
  } catch (error) {
    code = FAILED;
    if (error instanceof UsageError) fail(error);
    else log.fatal({ err: error }, 'the command failed');
  }
  shutdown.request();
  await shutdown.release();
  process.exit(code);
}

function fail(error: unknown): void {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
}

function numberBetween(min: number, max: number) {
  return (text: string): number => {
    const value = Number(text);
    if (text.trim() === '' || !(value >= min && value <= max))
      throw new InvalidArgumentError(`Expected ${min} to ${max}.`);
    return value;
  };
}

function wholeNumber(min: number, max: number) {
  return (text: string): number => {
    const value = numberBetween(min, max)(text);
    if (!Number.isInteger(value)) throw new InvalidArgumentError('Expected a whole number.');
    return value;
  };
}

/** `90s`, `15m`, `2h` or `3d`, in ms. */
function duration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([smhd])$/.exec(text);
  if (match === null) throw new InvalidArgumentError('Expected a number with s, m, h or d, such as 15m.');
  const unitMs = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }[match[2] ?? ''] ?? 0;
  return Number(match[1]) * unitMs;
}

const program = new Command('pipeline')
  .description("Loads a vehicle-data provider's files into Cassandra, aggregates them, and shows all of it.")
  .showHelpAfterError('(add --help for what is possible)')
  .configureHelp({ showGlobalOptions: true })
  .exitOverride();

const json = () => new Option('--json', 'print data as JSON').default(false);

program
  .command('start')
  .description(
    'everything on this machine: local Redis and Cassandra unless the environment points to others, and every role',
  )
  .option('--no-generate', 'leave the simulator out')
  .action((options: { generate: boolean }) => runCommand('start', (runtime) => start(runtime, options)));

program
  .command('services')
  .description('only the local Redis and Cassandra')
  .action(() => runCommand('services', services));

program
  .command('migrate')
  .description('make the keyspace and the tables, or bring them up to this version')
  .action(() => runCommand('migrate', migrateSchema));

program
  .command('generate')
  .description("the provider's simulator: a file of events and one of status reports, again and again")
  .option('--interval <seconds>', 'between two rounds', numberBetween(0, 86_400), 0.5)
  .option('--count <rounds>', 'rounds to write (default: endless)', wholeNumber(1, 1_000_000_000))
  .option('--records <n>', 'records a file', wholeNumber(0, 10_000_000), 100)
  .option('--vehicles <n>', 'vehicles of the fleet', wholeNumber(1, 1_000_000), 200)
  .option('--late <share>', 'share of records that are late', numberBetween(0, 1), 0)
  .option('--late-seconds <n>', 'how late at most', numberBetween(0, 1e9), 172_800)
  .option('--duplicate <share>', 'share of records that stand twice', numberBetween(0, 1), 0)
  .option('--out-of-order', 'shuffle the records of each file', false)
  .option('--bad <share>', 'share of records that cannot be taken', numberBetween(0, 1), 0)
  .option('--in-place', 'write under the final name instead of renaming', false)
  .action(({ interval, count, ...options }) =>
    runCommand('generate', (runtime) =>
      generateFiles(runtime, { ...options, intervalSeconds: interval, rounds: count }),
    ),
  );

program
  .command('watch')
  .description('the producer: queues files that arrive and files that were missed, keeps the schedule')
  .action(() => runCommand('watch', watch));

program
  .command('process')
  .description('a processor replica; start as many as wanted, on as many machines as wanted')
  .action(() => runCommand('process', processJobs));

program
  .command('aggregate')
  .description('one aggregation now: waits for it and prints what it did')
  .option('--rebuild', 'recompute every summary from all raw rows', false)
  .addOption(json())
  .action((options: { rebuild: boolean; json: boolean }) =>
    runCommand('aggregate', (runtime) => aggregateNow(runtime, options)),
  );

program
  .command('board')
  .description('Bull Board, the page, metrics and health, over HTTP')
  .action(() => runCommand('board', board));

program
  .command('status')
  .description('queues, lag, watermark and rates')
  .option('--watch', 'again every two seconds', false)
  .addOption(json())
  .action((options: { json: boolean; watch: boolean }) =>
    runCommand('status', (runtime) => showStatus(runtime, options)),
  );

program
  .command('backfill')
  .description('queue what is not loaded yet of a folder below DATA_DIR')
  .argument('<dir>', 'the folder')
  .addOption(json())
  .action((directory: string, options: { json: boolean }) =>
    runCommand('backfill', (runtime) => backfill(runtime, directory, options)),
  );

interface FilterOptions {
  readonly reason?: string;
  readonly name?: string;
  readonly olderThan?: number;
  readonly newerThan?: number;
  readonly all?: boolean;
  readonly json: boolean;
}

function selectionOf(files: readonly string[], options: FilterOptions): Selection {
  return {
    files,
    reason: options.reason,
    name: options.name,
    olderThanMs: options.olderThan,
    newerThanMs: options.newerThan,
    all: options.all ?? false,
  };
}

const failed = program.command('failed').description('dead letters: files that could not be loaded');

function withFilters(command: Command): Command {
  return command
    .option('--reason <text>', 'whose reason contains the text')
    .option('--name <text>', 'whose name contains the text')
    .option('--older-than <age>', 'that failed at least so long ago, such as 15m', duration)
    .option('--newer-than <age>', 'that failed at most so long ago', duration)
    .addOption(json());
}

withFilters(failed.command('list').description('list them')).action((options: FilterOptions) =>
  runCommand('failed', (runtime) => listFailed(runtime, selectionOf([], options), options)),
);

failed
  .command('show')
  .description('show one')
  .argument('<id-or-name>', 'the id or the name of the file')
  .addOption(json())
  .action((idOrName: string, options: { json: boolean }) =>
    runCommand('failed', (runtime) => showFailed(runtime, idOrName, options)),
  );

for (const [name, description, run] of [
  ['retry', 'send files back to ingest', retryFailed],
  ['discard', 'give files up; they stay in the folder', discardFailed],
] as const) {
  withFilters(failed.command(name).description(description).argument('[id-or-name...]', 'ids or names of files'))
    .option('--all', 'all of them')
    .action((files: string[], options: FilterOptions) =>
      runCommand('failed', (runtime) => run(runtime, selectionOf(files, options), options)),
    );
}

try {
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  process.exitCode = error.exitCode === 0 ? 0 : BAD_USAGE;
}
