import { stat } from 'node:fs/promises';
import { relative, resolve, sep } from 'node:path';
import { Presets, SingleBar } from 'cli-progress';
import { UsageError } from '../config.ts';
import { namesBelow } from '../producers/data-folder.ts';
import { createReconciliation } from '../producers/reconciliation.ts';
import { openQueues, openStore } from './connect.ts';
import type { Runtime } from './runtime.ts';

/** Queues what is not loaded yet of a folder below DATA_DIR, behind the files that arrive now. */
export async function backfill(runtime: Runtime, directory: string, options: { json: boolean }): Promise<void> {
  const { config, log, shutdown } = runtime;
  const below = await folderBelow(config.DATA_DIR, directory);
  const opened = await openQueues(runtime);
  const store = await openStore(runtime);
  const reconciliation = createReconciliation({ ...opened, config, store, log, signal: shutdown.signal });

  let files = 0;
  for await (const _name of namesBelow(config.DATA_DIR, below)) files += 1;
  const bar = new SingleBar(
    { format: '{bar} {percentage}% {value} of {total} files compared, {queued} queued', stream: process.stderr },
    Presets.shades_classic,
  );
  bar.start(files, 0, { queued: 0 });
  const done = await reconciliation
    .run(below, (soFar) => bar.update(soFar.seen, { queued: soFar.queued }))
    .finally(() => bar.stop());
  process.stdout.write(
    options.json
      ? `${JSON.stringify(done)}\n`
      : `${done.seen} files: ${done.queued} queued, ${done.seen - done.queued} need nothing.\n`,
  );
}

async function folderBelow(dataDir: string, directory: string): Promise<string> {
  const path = resolve(directory);
  const below = relative(dataDir, path);
  if (below === '..' || below.startsWith(`..${sep}`)) {
    throw new UsageError(
      `${directory} is not below DATA_DIR (${dataDir}), where processors look for files: move or copy it there first.`,
    );
  }
  const isFolder = await stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
  if (!isFolder) throw new UsageError(`${directory} is not a folder.`);
  return below;
}
