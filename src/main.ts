import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import type { Logger } from 'pino';
import type { Selection } from './commands/failed.ts';
import { BadUsage, parseConfig, UsageError, type Config } from './config.ts';
import { findLocalServices } from './local/find.ts';
import { createLog } from './log.ts';
import { codeOf, createShutdown, isOfSystem, isRedisAnswer, messageOf, type Runtime } from './runtime.ts';

// The heap may double before its garbage is collected, not quadruple: a third less memory for a few percent of time.
setFlagsFromString('--heap-growing-percent=100');

const FAILED = 1;
const BAD_USAGE = 2;
/** How long a command that was asked to stop may take to do so, before its connections are closed. */
const GRACE_MS = 1_500;
const HEARTBEAT_MS = 10_000;
/** npm passes on the Ctrl-C that the terminal has sent us, too; a person presses it again later than this. */
const SAME_SIGNAL_MS = 500;

/** The configuration, with the local stores that run on this machine where the environment points to no others. */
async function readConfig(command: string): Promise<Config> {
  try {
    if (existsSync('.env')) process.loadEnvFile('.env');
  } catch (error) {
    throw new BadUsage(`.env cannot be read: is it a file, and may this user read it? (${messageOf(error)})`);
  }
  const config = parseConfig(process.env);
  if (['start', 'services', 'generate'].includes(command)) return config;
  const { REDIS_URL, ...cassandra } = await findLocalServices(config.LOCAL_DIR);
  const isLocal = config.CASSANDRA_CONTACT_POINTS === undefined;
  return { ...config, REDIS_URL: config.REDIS_URL ?? REDIS_URL, ...(isLocal && cassandra) };
}

/** Whether the driver says that Cassandra is away, overloaded or refuses something. By name, as few commands load it. */
function isOfCassandra(error: unknown): boolean {
  const names = ['NoHostAvailableError', 'OperationTimedOutError', 'BusyConnectionError', 'ResponseError'];
  return error instanceof Error && names.includes(error.name);
}

/** Says what went wrong; with a stack trace only where no person can mend it. */
function exitCodeOf(error: unknown): number {
  const message = messageOf(error);
  // An error of the system, as of a folder that is not there, names what is wrong.
  const isKnown = error instanceof UsageError || isRedisAnswer(message) || isOfSystem(error);
  const ofStore = `Cassandra failed (${message}): \`npx pipeline doctor\` looks at it; run this again then.`;
  const otherwise = error instanceof Error ? error.stack : message;
  process.stderr.write(`${isOfCassandra(error) ? ofStore : isKnown ? message : otherwise}\n`);
  return error instanceof BadUsage ? BAD_USAGE : FAILED;
}

/**
 * Writes a file again and again, for a health check from outside: a process that hangs does not. Where that fails, the
 * check fails, and the process says why.
 */
function keepAlive(file: string, log: Logger): void {
  const beat = () => {
    try {
      writeFileSync(file, '');
    } catch (error) {
      log.error({ reason: messageOf(error) }, 'HEARTBEAT_FILE cannot be written');
    }
  };
  beat();
  setInterval(beat, HEARTBEAT_MS).unref();
}

/** The action of a command: environment in, signals turned into the wish to stop, everything released, exit code out. */
function running<Given extends unknown[]>(
  name: string,
  load: () => Promise<(runtime: Runtime, ...given: Given) => Promise<void>>,
) {
  return async (...given: Given): Promise<void> => {
    const config = await readConfig(name).catch((error: unknown) => process.exit(exitCodeOf(error)));
    const log = createLog(config, name);
    const shutdown = createShutdown(log);
    let firstSignalAt = Infinity;
    const onSignal = () => {
      if (performance.now() - firstSignalAt > SAME_SIGNAL_MS) process.exit(FAILED);
      firstSignalAt = Math.min(firstSignalAt, performance.now());
      shutdown.request();
    };
    process.on('SIGINT', onSignal).on('SIGTERM', onSignal).on('SIGHUP', onSignal);
    // A command beside a role, in the same container, must not vouch for that.
    const isRole = ['watch', 'process', 'board', 'generate'].includes(name);
    if (isRole && config.HEARTBEAT_FILE !== undefined) keepAlive(config.HEARTBEAT_FILE, log);
    process.stdout.on('error', (error) => {
      // Who reads no further, as `head` or a terminal that was closed, wants no more.
      if (['EPIPE', 'EIO'].includes(codeOf(error))) shutdown.request();
      else process.exit(exitCodeOf(error));
    });
    // `pipeline start` keeps a channel to its roles: when it is gone, so are they.
    process.on('disconnect', () => shutdown.request());
    process.on('unhandledRejection', (error) => {
      process.exit(exitCodeOf(error));
    });

    let code = 0;
    try {
      const done = load().then((command) => command({ config, log, shutdown }, ...given));
      const late = shutdown.requested.then(() => sleep(GRACE_MS, 'late'));
      if ((await Promise.race([done, late])) === 'late') {
        // What it waits for is taken from it next.
        done.catch(() => undefined);
        throw new UsageError('Stopped before it was done.');
      }
    } catch (error) {
      code = exitCodeOf(error);
    }
    // What a slow reader of a pipe has not taken yet would be lost; who asks us to stop wants no more of it.
    const printed = new Promise<void>((resolve) => process.stdout.write('', () => resolve()));
    await Promise.race([printed, shutdown.requested]);
    shutdown.request();
    await shutdown.release();
    process.exit(code);
  };
}

function numberBetween(min: number, max: number, isWhole = false) {
  return (text: string): number => {
    const value = Number(text);
    if (text.trim() !== '' && value >= min && value <= max && (!isWhole || Number.isInteger(value))) return value;
    throw new InvalidArgumentError(`Expected a ${isWhole ? 'whole ' : ''}number from ${min} to ${max}.`);
  };
}
const wholeNumber = (min: number, max: number) => numberBetween(min, max, true);
const share = numberBetween(0, 1);

/** An empty one, as of a variable of a script that is not set, would mean all. */
function someText(text: string): string {
  if (text === '') throw new InvalidArgumentError('Expected a text; for all of them, say --all.');
  return text;
}

/** `90s`, `15m`, `2h` or `3d`, in ms. */
function duration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([smhd])$/.exec(text);
  if (match === null) throw new InvalidArgumentError('Expected a number with s, m, h or d, such as 15m.');
  return Number(match[1]) * ({ s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }[match[2] ?? ''] ?? 0);
}

/** What the commands do, each imported when it is called for, so that no process holds the libraries of all others. */
const actions = {
  start: running('start', async () => (await import('./commands/start.ts')).start),
  services: running('services', async () => (await import('./commands/services.ts')).services),
  migrate: running('migrate', async () => (await import('./commands/migrate.ts')).migrateSchema),
  watch: running('watch', async () => (await import('./commands/watch.ts')).watch),
  process: running('process', async () => (await import('./commands/process.ts')).processJobs),
  board: running('board', async () => (await import('./commands/board.ts')).board),
  generate: running('generate', async () => (await import('./commands/generate.ts')).generateFiles),
  aggregate: running('aggregate', async () => (await import('./commands/aggregate.ts')).aggregateNow),
  status: running('status', async () => (await import('./commands/status.ts')).showStatus),
  backfill: running('backfill', async () => (await import('./commands/backfill.ts')).backfill),
  verify: running('verify', async () => (await import('./commands/verify.ts')).verifyFiles),
  doctor: running('doctor', async () => (await import('./commands/doctor.ts')).doctor),
};

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string;
};
const program = new Command('pipeline')
  .description("Loads a vehicle-data provider's files into Cassandra, aggregates them, and shows all of it.")
  .version(version)
  .showHelpAfterError('(add --help for what is possible)')
  .exitOverride();

/** Adds a command; what it takes is added to what this returns. */
function add(parent: Command, name: string, description: string): Command {
  return parent.command(name).description(description);
}
const withJson = (command: Command) => command.option('--json', 'print data as JSON', false);

add(program, 'start', 'everything on this machine: local stores unless the environment points to others, every role')
  .option('--no-generate', 'leave the simulator out')
  .action(actions.start);
for (const [name, description] of [
  ['services', 'only the local Redis and Cassandra'],
  ['migrate', 'make the keyspace and the tables, or bring them up to this version'],
  ['watch', 'the producer: queues files that arrive and files that were missed, keeps the schedule'],
  ['process', 'a processor replica; start as many as wanted, on as many machines as wanted'],
  ['board', 'Bull Board, the page, metrics and health, over HTTP'],
] as const) {
  add(program, name, description).action(actions[name]);
}

add(program, 'generate', "the provider's simulator: a file of events and one of status reports, again and again")
  .option('--interval <seconds>', 'between two rounds', numberBetween(0, 86_400), 0.5)
  .option('--count <rounds>', 'rounds to write (default: endless)', wholeNumber(1, 1e9))
  .option('--records <n>', 'records a file', wholeNumber(0, 500_000), 100)
  .option('--vehicles <n>', 'vehicles of the fleet', wholeNumber(1, 1e6), 200)
  .option('--late <share>', 'share of records that are late', share, 0)
  .option('--late-seconds <n>', 'how late at most', numberBetween(0, 1e9), 172_800)
  .option('--duplicate <share>', 'share of records that stand twice', share, 0)
  .option('--out-of-order', 'shuffle the records of each file', false)
  .option('--bad <share>', 'share of records that cannot be taken', share, 0)
  .option('--in-place', 'write under the final name instead of renaming', false)
  .action(actions.generate);

withJson(add(program, 'aggregate', 'one aggregation now: waits for it and prints what it did'))
  .option('--rebuild', 'recompute every summary from all raw rows', false)
  .action(actions.aggregate);
withJson(add(program, 'status', 'queues, lag, watermark and rates'))
  .option('--watch', 'again every two seconds', false)
  .action(actions.status);
withJson(add(program, 'backfill', 'queue what is not loaded yet of a folder below DATA_DIR'))
  .argument('<dir>', 'the folder')
  .action(actions.backfill);
withJson(add(program, 'verify', 'read the files again and compare all that is stored with them'))
  .option('--repair', 'mend what differs', false)
  .option('--sample <share>', 'read a share of the files, drawn at random', share, 1)
  .action(actions.verify);
withJson(add(program, 'doctor', 'looks at what the pipeline stands on, and says what to do')).action(actions.doctor);

const failed = add(program, 'failed', 'dead letters: files that could not be loaded');
for (const [name, description, command] of [
  ['list', 'list them', 'listFailed'],
  ['show', 'show all that is known of them', 'showFailed'],
  ['retry', 'send files back to ingest', 'retryFailed'],
  ['discard', 'give files up; they stay in the folder', 'discardFailed'],
] as const) {
  const load = async () => {
    const commands = await import('./commands/failed.ts');
    return (runtime: Runtime, files: string[], options: Omit<Selection, 'files'>) =>
      commands[command](runtime, { files, ...options });
  };
  withJson(add(failed, name, description))
    .argument('[id-or-name...]', 'ids or names of files')
    .option('--reason <text>', 'whose reason contains the text', someText)
    .option('--name <text>', 'whose name contains the text', someText)
    .option('--older-than <age>', 'that failed at least so long ago, such as 15m', duration)
    .option('--newer-than <age>', 'that failed at most so long ago', duration)
    .option('--all', 'all of them', false)
    .action(running('failed', load));
}

try {
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  process.exitCode = error.exitCode === 0 ? 0 : BAD_USAGE;
}
