import { stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openAll } from '../../src/commands/connect.ts';
import { piecesOf } from '../../src/pieces.ts';
import { createReconciliation } from '../../src/producers/reconciliation.ts';
import { ledgerRow } from '../../src/storage/files.ts';
import { openSpace } from './pipeline.ts';

const FILES = 6_000;
const OLD_MS = 3_600_000;

describe('a folder of many files', async () => {
  const space = await openSpace({ DURABLE_SECONDS: 1_800 });
  const opened = await openAll(space.runtime());
  const names = Array.from({ length: FILES }, (_, n) => `vehicles_events_${n}.json`);
  const [, lost = '', rewritten = '', young = ''] = names;
  const asked: string[] = [];
  let starts = 0n;
  const store = {
    ...opened.store,
    rows: (query: string, parameters: readonly unknown[]) => {
      if (query.includes('FROM files WHERE name IN')) asked.push(...(parameters as [string[]])[0]);
      return opened.store.rows(query, parameters);
    },
    nodes: async () => {
      const { generations, down } = await opened.store.nodes();
      return { down, generations: new Map([...generations].map(([node, nth]) => [node, nth + starts])) };
    },
  };
  const run = createReconciliation({ ...opened, store });
  const compare = async () => {
    asked.length = 0;
    const { seen, queued } = await run();
    return { seen, queued, asked: [...asked].sort() };
  };

  async function load(name: string, finishedAt: number): Promise<void> {
    const path = join(space.config.DATA_DIR, name);
    await writeFile(path, '[]');
    await utimes(path, new Date(Date.now() - OLD_MS), new Date(Date.now() - OLD_MS));
    const { size, mtimeNs } = await stat(path, { bigint: true });
    const version = name === rewritten ? `${size}-1` : `${size}-${mtimeNs}`;
    const row = { name, version, state: 'loaded', dataset: 'events', bytes: size, attempts: 1, worker: '' } as const;
    const times = { file_time: new Date(), started_at: new Date(finishedAt), finished_at: new Date(finishedAt) };
    const timestamp = BigInt(Math.round(finishedAt * 1_000));
    if (name !== lost) await opened.store.insertRows([{ ...ledgerRow({ ...row, ...times }), timestamp }]);
  }

  it('is compared in one pass over the ledger, which is asked only for what that does not settle', async () => {
    const now = opened.store.now();
    for (const some of piecesOf(names, 100))
      await Promise.all(some.map((name) => load(name, name === young ? now : now - OLD_MS)));
    const missing = [lost, rewritten].sort();
    expect(await compare()).toEqual({ seen: FILES, queued: 2, asked: missing });
    expect(await compare()).toEqual({ seen: FILES, queued: 2, asked: missing });
  });

  it('again when Cassandra was started anew, but for what that may have forgotten', async () => {
    starts += 1n;
    const doubtful = [lost, rewritten, young].sort();
    expect(await compare()).toEqual({ seen: FILES, queued: 3, asked: doubtful });
    expect(await space.read('SELECT state FROM files WHERE name = ?', [young])).toEqual([{ state: 'superseded' }]);
  });

  describe('is looked up name by name', () => {
    const isWhole = (query: string) => !query.includes('WHERE name IN');

    it('where the ledger holds much more', async () => {
      let rows = 0;
      async function* endless(query: string, parameters: readonly unknown[]) {
        for await (const row of store.rows(query, parameters))
          for (let copy = 0; copy < (isWhole(query) ? 20 : 1); copy += 1) {
            if (isWhole(query)) rows += 1;
            yield isWhole(query) && copy === 0 ? { ...row, name: 'left the folder' } : row;
          }
      }
      asked.length = 0;
      const fresh = createReconciliation({ ...opened, store: { ...store, rows: endless } });
      expect(await fresh()).toMatchObject({ seen: FILES, queued: 3 });
      expect(rows).toBeLessThan(FILES * 5);
      expect(asked.length).toBeGreaterThan(FILES / 2);
    });

    it('where the ledger cannot be read as a whole', async () => {
      const rows = (query: string, parameters: readonly unknown[]) => {
        if (isWhole(query)) throw new Error('too many tombstones');
        return store.rows(query, parameters);
      };
      asked.length = 0;
      expect(await createReconciliation({ ...opened, store: { ...store, rows } })()).toMatchObject({ queued: 3 });
      expect(asked).toHaveLength(FILES);
    });
  });
});
