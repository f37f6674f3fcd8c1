import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { parseEnv } from 'node:util';
import { expect, it } from 'vitest';
import { environmentVariables, parseConfig } from '../../src/config.ts';

const example = await readFile(resolve(import.meta.dirname, '../../.env.example'), 'utf8');

it('.env.example names every variable that the pipeline reads, and no other', () => {
  const named = [...example.matchAll(/^(?:# )?([A-Z_]+)=/gm)].map(([, name]) => name);
  expect(named.toSorted()).toEqual(environmentVariables.toSorted());
});

it('.env.example gives every variable a comment line', () => {
  const lines = example.split('\n');
  const bare = lines.filter((line, n) => /^(?:# )?[A-Z_]+=/.test(line) && !/^(?:# )/.test(lines[n - 1] ?? ''));
  // The second of a pair that shares its comment.
  expect(bare).toEqual(['LOCAL_CASSANDRA_PORT=9042']);
});

it('.env.example shows the defaults', () => {
  expect(parseConfig(parseEnv(example))).toEqual(parseConfig({}));
});

it('.env.example sets nothing for which compose has another default, since compose reads the same .env', async () => {
  const compose = await readFile(resolve(import.meta.dirname, '../../docker-compose.yml'), 'utf8');
  const set = parseEnv(example);
  for (const [, name = '', value] of compose.matchAll(/\$\{([A-Z_]+):-([^}]*)\}/g))
    expect(set[name] ?? value, name).toBe(value);
});
