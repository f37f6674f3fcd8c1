import { lstat, opendir, stat } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { datasetOf } from '../datasets/catalog.ts';
import type { IngestJob } from '../queues/ingest.ts';

/** Where files go with AFTER_LOAD=archive: a folder of the data folder that is never scanned. */
export const ARCHIVE_FOLDER = 'archive';

/** Whether a folder of the data folder is looked into. */
export function isScanned(path: string): boolean {
  const [top = ''] = path.split(sep);
  return top !== ARCHIVE_FOLDER && !path.split(sep).some((part) => part.startsWith('.'));
}

/** The name of a file as the queue and the ledger have it: its path below the data folder, with forward slashes. */
export function nameOf(dataDir: string, path: string): string {
  return relative(dataDir, path).split(sep).join('/');
}

/**
 * The names below a folder that are some dataset's, in no order. A folder or link of such a name counts as a file:
 * the processor says what is wrong with it.
 *
 * @param below a folder of the data folder, '' for the data folder itself
 */
export async function* namesBelow(dataDir: string, below = ''): AsyncGenerator<string> {
  const folders = [below];
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    for await (const entry of await opendir(join(dataDir, folder), { bufferSize: 512 })) {
      const path = join(folder, entry.name);
      if (datasetOf(entry.name) !== undefined) yield path.split(sep).join('/');
      else if (entry.isDirectory() && isScanned(path)) folders.push(path);
    }
  }
}

/** The version of a file that lies there now, or undefined when it is gone. Links are followed where they lead. */
export async function currentVersion(dataDir: string, name: string): Promise<IngestJob | undefined> {
  const path = join(dataDir, name);
  try {
    const { size, mtimeNs } = await stat(path, { bigint: true }).catch(() => lstat(path, { bigint: true }));
    return { name, size: Number(size), mtimeNs: String(mtimeNs) };
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR'))
      return undefined;
    throw error;
  }
}
