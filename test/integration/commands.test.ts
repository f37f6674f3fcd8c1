import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { expect, it } from 'vitest';
import { eventually, openSpace } from './pipeline.ts';
import { events } from './records.ts';

const space = await openSpace();
const said = (role: string) => readFile(join(dirname(space.config.DATA_DIR), `log.${role}`), 'utf8').catch(() => '');

it('a command whose reader wants no more ends without a word', async () => {
  space.startRole('status', ['sh', '-c', '"$@" --watch --json | head -n 1; echo ended', 'sh']);
  await eventually(async () => expect(await said('status')).toMatch(/^ended$/m));
  const [snapshot = '', ...others] = (await said('status')).trim().split('\n');
  expect(JSON.parse(snapshot)).toHaveProperty('redis.queues');
  expect(others).toEqual(['ended']);
});

it('a role whose heartbeat cannot be written says so, and works', async () => {
  space.startWatcher();
  space.startRole('process', ['HEARTBEAT_FILE=/nowhere/heartbeat']);
  const complaints = async () => (await said('process')).split('HEARTBEAT_FILE cannot be written').length - 1;
  await eventually(async () => expect(await complaints()).toBeGreaterThanOrEqual(2));
  await space.put('vehicles_events_1.json', events(1));
  await space.loaded(['vehicles_events_1.json']);
});
