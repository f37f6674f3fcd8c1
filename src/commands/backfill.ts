import { opendir } from 'node:fs/promises';
import { relative, resolve, sep } from 'node:path';
import { BadUsage, UsageError } from '../config.ts';
import { isScanned, namePages } from '../data-folder.ts';
import { createReconciliation } from '../producers/reconciliation.ts';
import type { Runtime } from '../runtime.ts';
import { print, startBar } from '../terminal.ts';
import { openAll } from './connect.ts';

/** Queues what is not loaded yet of a folder below DATA_DIR, behind the files that arrive now. */
export async function backfill(runtime: Runtime, directory: string, options: { json: boolean }): Promise<void> {
  const { config, shutdown } = runtime;
  const below = relative(config.DATA_DIR, resolve(directory));
  if (below.split(sep)[0] === '..')
    throw new BadUsage(
      `${directory} is not below DATA_DIR (${config.DATA_DIR}), where processors look: move it there.`,
    );
  if (!isScanned(below))
    throw new BadUsage(`${directory} is hidden or the archive, which are never loaded from; see \`verify --repair\`.`);
  const folder = await opendir(resolve(directory)).catch(() => undefined);
  if (folder === undefined) throw new BadUsage(`${directory} is not a folder.`);
  await folder.close();

  const compare = createReconciliation(await openAll(runtime));
  let files = 0;
  for await (const names of namePages(config.DATA_DIR, below)) files += names.length;
  const bar = startBar(files, 'files compared, {queued} queued', { queued: 0 });
  const done = await compare(below, (soFar) => bar.update(soFar.seen, { queued: soFar.queued })).finally(() =>
    bar.stop(),
  );
  const { seen, queued, young, deadLetters } = done;
  const others = seen - queued - young - deadLetters;
  const rest = `${young} left to the watcher, since they may still be written, ${deadLetters} dead letters, ${others} need nothing`;
  print(options.json, done, `${seen} files: ${queued} queued, ${rest}.`);
  if (shutdown.signal.aborted) throw new UsageError('Stopped before every file was compared.');
}
