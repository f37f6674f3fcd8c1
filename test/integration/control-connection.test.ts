import { setTimeout as sleep } from 'node:timers/promises';
import { policies } from 'cassandra-driver';
import { afterAll, expect, inject, it } from 'vitest';
import { createClient } from '../../src/storage/driver.ts';
import { startProxy } from '../torture/proxy.ts';
import { eventually } from './pipeline.ts';

const proxy = await startProxy(inject('cassandraPort'));
const client = createClient({
  contactPoints: ['127.0.0.1'],
  localDataCenter: 'datacenter1',
  protocolOptions: { port: proxy.port },
  policies: { reconnection: new policies.reconnection.ConstantReconnectionPolicy(20) },
});
const uncaught: unknown[] = [];
const onUncaught = (error: unknown) => void uncaught.push(error);

process.on('unhandledRejection', onUncaught);
afterAll(async () => {
  process.off('unhandledRejection', onUncaught);
  await client.shutdown();
  proxy.close();
});

it('the connections to Cassandra are lost again and again while they are made anew: no error is left uncaught', async () => {
  await client.connect();
  for (let round = 0; round < 8; round += 1) {
    for (let cut = 0; cut < 20; cut += 1) {
      proxy.set('cut');
      await sleep(Math.random() * 20);
      proxy.set('none');
      await sleep(Math.random() * 60);
    }
    await eventually(() => client.execute('SELECT now() FROM system.local'));
  }
  expect(uncaught).toEqual([]);
});
