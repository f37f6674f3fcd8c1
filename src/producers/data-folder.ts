import { lstat, opendir, stat } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { datasetOf } from '../datasets/catalog.ts';
import type { IngestJob } from '../queues/ingest.ts';

/** Where files go with AFTER_LOAD=archive: a folder of the data folder that is never scanned. */
export const ARCHIVE_FOLDER = 'archive';

/** Whether a folder, named by its path below the data folder, is looked into. */
export function isScanned(path: string): boolean {
  const parts = path.split(sep);
  return parts[0] !== ARCHIVE_FOLDER && !parts.some((part) => part.startsWith('.'));
}

/**
 * The paths, with forward slashes, of what has the name of some dataset's file in the data folder or `below`, a folder of
 * it; in no order. Folders and links of such names count, too: the processor says what is wrong with them.
 */
export async function* namesBelow(dataDir: string, below = ''): AsyncGenerator<string> {
  const folder = await opendir(join(dataDir, below), { bufferSize: 512 }).catch((error: unknown) => {
    // A folder below that may not be entered, or is gone by now, hides nothing but itself.
    if (below === '') throw error;
  });
  for await (const entry of folder ?? []) {
    const path = join(below, entry.name);
    if (datasetOf(entry.name) !== undefined) yield path.split(sep).join('/');
    else if (entry.isDirectory() && isScanned(path)) yield* namesBelow(dataDir, path);
  }
}

/** Every file of the data folder and of the archive: the name that the ledger knows it by, and the path where it lies. */
export async function* allFiles(dataDir: string): AsyncGenerator<{ name: string; path: string }> {
  for await (const name of namesBelow(dataDir)) yield { name, path: name };
  const archive = join(dataDir, ARCHIVE_FOLDER);
  for await (const entry of (await opendir(archive, { recursive: true }).catch(() => undefined)) ?? []) {
    const path = relative(dataDir, join(entry.parentPath, entry.name)).split(sep).join('/');
    // An earlier version of a name carries its version.
    const name = path.slice(ARCHIVE_FOLDER.length + 1).replace(/(\.jsonl?(?:\.gz)?)\.\d+--?\d+$/, '$1');
    if (datasetOf(name) !== undefined) yield { name, path };
  }
}

/** Stands in a name for bytes that are no UTF-8; under such a name nothing can be found. */
const REPLACEMENT_CHARACTER = '\uFFFD';

/** The version of a file that lies there now, or undefined when it is gone or hidden. Links are followed where they lead. */
export async function currentVersion(dataDir: string, name: string): Promise<IngestJob | undefined> {
  const path = join(dataDir, name);
  try {
    const { size, mtimeNs } = await stat(path, { bigint: true }).catch(() => lstat(path, { bigint: true }));
    return { name, size: Number(size), mtimeNs: String(mtimeNs) };
  } catch (error) {
    // The processor says what is wrong with it.
    if (name.includes(REPLACEMENT_CHARACTER)) return { name, size: 0, mtimeNs: '0' };
    if (error instanceof Error && 'code' in error && /^(ENOENT|ENOTDIR|EACCES|EPERM)$/.test(String(error.code)))
      return undefined;
    throw error;
  }
}
