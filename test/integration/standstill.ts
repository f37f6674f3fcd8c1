/** A lock is renewed while it has five seconds left at least. */
const MAX_MS = 4_000;

/** Loaded by Node before the program. A second of processor time is work of its own, which is no excuse. */
const teller = `
import { connect } from 'node:net';
const { hostname, port } = new URL(process.env.REDIS_URL);
let [at, cpu, waits] = [performance.now(), process.cpuUsage(), 0];
const redis = connect(Number(port), hostname, () => redis.unref());
redis.on('error', () => undefined).on('data', () => { waits = 0; });
setInterval(() => {
  const ms = performance.now() - at;
  const { user, system } = process.cpuUsage(cpu);
  if (ms > ${MAX_MS} && user + system < 1e6) console.error('stood still: this process');
  [at, cpu] = [performance.now(), process.cpuUsage()];
  if (waits === 0) redis.write('PING\\r\\n');
  waits += 1;
  if (waits === ${MAX_MS} / 100) console.error('stood still: Redis');
}, 100).unref();
`;

/** Arguments of `startRole`: the role says when it, or Redis, stood still for so long that a lock may be lost for it. */
export const TELLS_STANDSTILL = [`NODE_OPTIONS=--import=data:text/javascript,${encodeURIComponent(teller)}`];

/** Whether a role that was started so has said it since its first line: before, it waits for what is to be built. */
export const stoodStill = (said: string) => /^{"level":.*^stood still: /ms.test(said);
