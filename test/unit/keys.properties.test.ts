import { resolve, sep } from 'node:path';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { contentId } from '../../src/datasets/json.ts';
import { ingestJobId, relativePath, versionOf } from '../../src/queues/ingest.ts';

fc.configureGlobal({ numRuns: 10_000 });

async function sha256(...parts: readonly string[]): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(parts.join('')));
  return Buffer.from(digest).toString('hex');
}

const anyText = fc.string({ unit: 'binary', maxLength: 40 });
const file = fc.record({
  name: anyText,
  size: fc.nat(Number.MAX_SAFE_INTEGER),
  mtimeNs: fc.bigInt({ min: -(10n ** 20n) + 1n, max: 10n ** 20n - 1n }).map(String),
});

it('a version tells size and time apart', () => {
  fc.assert(
    fc.property(file, ({ size, mtimeNs }) => {
      const [, bytes, nanos] = /^(\d+)-(-?\d+)$/.exec(versionOf({ size, mtimeNs })) ?? [];
      expect([Number(bytes), nanos]).toEqual([size, mtimeNs]);
    }),
  );
});

it('a job id is the hash of name and version, in a form that BullMQ takes', async () => {
  await fc.assert(
    fc.asyncProperty(file, async ({ name, size, mtimeNs }) => {
      const id = ingestJobId({ name, size, mtimeNs });
      expect(id).toBe(`f${(await sha256(name, '\0', String(size), '-', mtimeNs)).slice(0, 31)}`);
      expect(ingestJobId({ name, version: versionOf({ size, mtimeNs }) })).toBe(id);
    }),
  );
});

it('a content id is the first half of the hash of the text in UTF-8', async () => {
  await fc.assert(
    fc.asyncProperty(anyText, async (text) => {
      expect(contentId(text)).toBe((await sha256(text)).slice(0, 32));
    }),
  );
});

it('what passes as a path below the data folder stays there, and what does not has a reason to be refused', () => {
  const part = fc.oneof(
    fc.constantFrom('..', '.', '', '...', '..a', 'a..', ' ..', '\0', '%2e%2e', '~', 'a.json'),
    fc.string({ unit: 'binary', maxLength: 3 }),
  );
  const path = fc
    .array(fc.tuple(part, fc.constantFrom('/', '/', '\\')), { maxLength: 6 })
    .map((parts) => parts.flat().slice(0, -1).join(''));
  const long = fc.nat(8_000).map((length) => 'x'.repeat(length));
  fc.assert(
    fc.property(fc.oneof({ weight: 20, arbitrary: path }, long), (text) => {
      if (relativePath.safeParse(text).success) {
        const [folder, path] = [resolve('/data') + sep, resolve('/data', `./${text}`) + sep];
        expect(path.slice(0, folder.length)).toBe(folder);
        expect(text.startsWith('/')).toBe(false);
        expect(text.includes('\0')).toBe(false);
      } else {
        // Where a backslash does not separate folders, one leads nowhere.
        const leadsUp = `/${text.replaceAll(sep, '/')}/`.includes('/../');
        expect(text === '' || text.startsWith('/') || text.includes('\0') || text.length > 4_351 || leadsUp).toBe(true);
      }
    }),
  );
});
