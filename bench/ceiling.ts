import { once } from 'node:events';
import { bareClient } from './space.ts';
import { createProvider } from './provider.ts';
import { partitionsOf, writePartitions } from './rows.ts';

// The ceiling, as a process of its own: the bare driver writes the rows of the same files, which are in memory, sorted
// by partition, before the clock starts. Without a queue, files, checks, a ledger or a change log.

const { port, keyspace, pairs, provider } = JSON.parse(process.argv[2] ?? '{}');
const client = bareClient(port, keyspace);
await client.connect();
const partitions = partitionsOf(createProvider(provider).pairs(pairs));
process.send?.('ready');
await once(process, 'message');
const started = performance.now();
await writePartitions(client, partitions);
process.send?.((performance.now() - started) / 1_000);
await once(process, 'message');
await client.shutdown();
process.disconnect();
