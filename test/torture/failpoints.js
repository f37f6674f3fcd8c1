// Loaded by Node before the program (NODE_OPTIONS=--import), in the processes of the torture suite only: the program does
// not know of it. What it does is told by files of the folder TORTURE_CONTROL:
//   armed.json          {"step", "when", "nth", "signal"}: the process that comes there for the nth time sends itself the
//                       signal: SIGKILL, as in a crash, or SIGSTOP, to be woken up later
//   fired.json          written here: which process that was, and the file that the step was about
//   clock-<role>        ms that the wall clock of that role is ahead
//   steps.txt           written here: the name of every step that a process has taken
// A data file whose name contains poison<N> ends the first N processes that open it.
import fs, { appendFileSync, existsSync, promises as files, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { basename, join } from 'node:path';
import { setInterval } from 'node:timers';
import bullmq from 'bullmq';
import cassandra from 'cassandra-driver';

const { TORTURE_CONTROL: folder = '', TORTURE_ROLE: role = '' } = process.env;
const armed = join(folder, 'armed.json');
const seen = new Set();
let counted = { text: '', left: 0 };

/** Ends this process when it has come to what is armed; of several processes only the one that takes the file. */
function reach(name, when, about) {
  const step = `${role.replace(/-.*/, '')} ${name}`;
  if (!seen.has(step)) {
    seen.add(step);
    appendFileSync(join(folder, 'steps.txt'), `${step}\n`);
  }
  if (!existsSync(armed)) return;
  let signal;
  try {
    const text = readFileSync(armed, 'utf8');
    const wanted = JSON.parse(text);
    signal = wanted.signal;
    if (wanted.step !== step || wanted.when !== when) return;
    if (counted.text !== text) counted = { text, left: wanted.nth };
    counted.left -= 1;
    if (counted.left > 0) return;
    renameSync(armed, join(folder, `taken-by-${process.pid}`));
  } catch {
    return; // Another process was there first.
  }
  writeFileSync(join(folder, 'fired.json'), JSON.stringify({ role, about: typeof about === 'string' ? about : '' }));
  process.kill(process.pid, signal);
}

/** Makes a method a step; `nameOf` gets its arguments and says which, or nothing. */
function watchStep(owner, method, nameOf) {
  const original = owner[method];
  if (typeof original !== 'function')
    throw new Error(`There is no ${method} to watch: mend test/torture/failpoints.js.`);
  owner[method] = async function (...args) {
    const step = nameOf.call(this, ...args);
    if (step === undefined) return original.apply(this, args);
    reach(step, 'before', args[0]);
    const result = await original.apply(this, args);
    reach(step, 'after', args[0]);
    return result;
  };
}

/** `cassandra insert change_log`, `cassandra select files`, …: the verb, with what is distinct, and the table. */
function statementOf(query) {
  const [, verb = ''] = /^\s*(select distinct|\w+)/i.exec(query) ?? [];
  const [, table = ''] = /\b(?:FROM|INTO|UPDATE)\s+([\w.]+)/i.exec(query) ?? [];
  return table.startsWith('system') ? undefined : `cassandra ${verb.toLowerCase()} ${table}`;
}
watchStep(cassandra.Client.prototype, 'execute', (query) => statementOf(query));
watchStep(cassandra.Client.prototype, 'batch', ([first]) => statementOf(first.query));

const changesOfQueues =
  'moveToActive moveToCompleted moveToFailed moveToDelayed moveToWaitingChildren moveStalledJobsToWait addJob addJobs ' +
  'addLog updateProgress updateData remove retryJob addJobScheduler';
for (const method of changesOfQueues.split(' ')) {
  watchStep(bullmq.RedisQueueBackend.prototype, method, function () {
    return `redis ${method} ${this.name}`;
  });
}

const isData = (path) => /^vehicles_/.test(basename(String(path)));
for (const method of ['rename', 'unlink']) {
  watchStep(files, method, (path) => (isData(path) ? `folder ${method}` : undefined));
}

/** Ends this process, so many times for each such file. */
function endByPoison(path) {
  const kills = Number(/poison(\d+)/.exec(basename(path))?.[1] ?? 0);
  for (let kill = 1; kill <= kills; kill += 1) {
    const mark = join(folder, `${basename(path)}.${kill}`);
    if (existsSync(mark)) continue;
    writeFileSync(mark, role);
    process.kill(process.pid, 'SIGKILL');
  }
}
const { open } = fs;
fs.open = (path, ...rest) => {
  if (!isData(path)) return open(path, ...rest);
  const done = rest.pop();
  reach('folder open', 'before', path);
  return open(path, ...rest, (error, fd) => {
    reach('folder open', 'after', path);
    if (error === null) endByPoison(path);
    done(error, fd);
  });
};
syncBuiltinESMExports();

// The wall clock, which a step of it changes; the monotonic clock (performance.now) is not changed, as on a machine.
let aheadMs = 0;
const realNow = Date.now.bind(Date);
setInterval(() => {
  const file = join(folder, `clock-${role}`);
  aheadMs = existsSync(file) ? Number(readFileSync(file, 'utf8')) : 0;
}, 200).unref();
Date.now = () => realNow() + aheadMs;
globalThis.Date = new Proxy(Date, {
  construct: (target, args, newTarget) => Reflect.construct(target, args.length > 0 ? args : [target.now()], newTarget),
});
