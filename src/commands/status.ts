import { setTimeout as sleep } from 'node:timers/promises';
import { createSnapshotReader, type Snapshot } from '../board/snapshot.ts';
import type { Runtime } from '../runtime.ts';
import { print, printable } from '../terminal.ts';
import { openAll } from './connect.ts';

const EVERY_MS = 2_000;

/** Shows queues, lag, watermark and rates; with `watch`, again every two seconds until asked to stop. */
export async function showStatus(runtime: Runtime, options: { json: boolean; watch: boolean }): Promise<void> {
  const readSnapshot = createSnapshotReader(await openAll(runtime));
  const { signal } = runtime.shutdown;
  for (;;) {
    const snapshot = await readSnapshot();
    if (options.watch && process.stdout.isTTY && !options.json) process.stdout.write('\x1b[H\x1b[2J');
    print(options.json, snapshot, textOf(snapshot));
    if (!options.watch) return;
    await sleep(EVERY_MS, undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return;
  }
}

const STATES = ['waiting', 'backlog', 'active', 'delayed', 'completed', 'failed'] as const;

function textOf({ at, redis, cassandra }: Snapshot): string {
  const lines = [at, ''];
  const row = (name: string, cells: readonly (string | number)[]) =>
    lines.push(name.padEnd(20) + cells.map((cell) => String(cell).padStart(11)).join(''));
  if (redis === null) lines.push('Redis does not answer.');
  else {
    row('queue', STATES);
    for (const [name, { paused, ...counts }] of Object.entries(redis.queues)) {
      const cells = STATES.map((state) => counts[state]);
      row(name, paused ? [...cells, 'paused'] : cells);
    }
    const waits = `the oldest waits ${redis.oldestWaitingSeconds.toFixed(1)} s`;
    lines.push('', `${redis.filesPerMinute} files in the last minute, ${waits}, ${redis.workers.length} processor(s)`);
    for (const { name, reason } of redis.deadLetters.newest)
      lines.push(`dead letter: ${printable(`${name}: ${reason}`)}`);
  }
  if (cassandra === null) lines.push('Cassandra does not answer.');
  else {
    const { watermark, lagSeconds, today, yesterday, clockSkewMs } = cassandra;
    lines.push(`summaries are right up to ${watermark}, ${lagSeconds.toFixed(1)} s ago`);
    for (const day of [today, yesterday])
      if (day !== null) lines.push(`${day.day}: ${day.events} events of ${day.vehicles} vehicles`);
    const skew = `${Math.abs(clockSkewMs).toFixed(0)} ms ${clockSkewMs < 0 ? 'behind' : 'ahead of'}`;
    lines.push(`this clock is ${skew} Cassandra's`);
  }
  return lines.join('\n');
}
