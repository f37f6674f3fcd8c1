import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { UsageError } from '../config.ts';
import { fetchLibraries, HOW_TO_MEND, isFitForCassandra, javaVersion, STORES } from './maven.ts';
import { freePort } from './ports.ts';
import { startServer, type Place } from './server.ts';

/**
 * Cassandra's idle workers look for work every 10 µs or so, which on two cores takes a third of its time from those who give
 * it some. As their timers may be late by so many ns (prctl(2), PR_SET_TIMERSLACK), they look less often.
 */
const TIMER_SLACK_NS = 2_000_000;
/**
 * How much Cassandra gives way, as in nice(1): its many threads would else take turns with the one thread of a processor that
 * gives it work. Where each session has its share of the processor (sched(7), autogroup), the session has to give way.
 */
const NICENESS = 5;
const own = (file: string, value: number) => `echo ${value} >/proc/self/${file}`;
/** Sets what the system knows of these for the command that takes the shell's place. */
const GIVING_WAY = [
  'sh',
  '-c',
  `{ ${own('timerslack_ns', TIMER_SLACK_NS)}; ${own('autogroup', NICENESS)}; } 2>/dev/null; exec nice -n ${NICENESS} "$@"`,
  'sh',
];

/** Folder with Cassandra's jars, fetched the first time. @throws UsageError when there is no Java to run them */
export async function findCassandraJars(libDirectory: string, signal?: AbortSignal): Promise<string> {
  if (!isFitForCassandra(await javaVersion(signal)))
    throw new UsageError(`Cassandra needs Java 17 to 23, and the java on the PATH is another. ${HOW_TO_MEND}`);
  return fetchLibraries(libDirectory, signal);
}

/**
 * Starts a single Cassandra node on loopback and resolves when it accepts CQL.
 *
 * @param options `jars` is from findCassandraJars; `settings` go into cassandra.yaml, `flags` to the JVM
 */
export async function startCassandra(
  options: Place & { jars: string; heapMb?: number; settings?: Record<string, unknown>; flags?: readonly string[] },
) {
  const { jars, directory, port, heapMb = 1_024, flags = [] } = options;
  let storagePort = port; // which nobody listens on yet
  while (storagePort === port) storagePort = await freePort(0);
  const seeds = [{ seeds: `127.0.0.1:${storagePort}` }];
  const settings = {
    cluster_name: 'local',
    partitioner: 'org.apache.cassandra.dht.Murmur3Partitioner',
    endpoint_snitch: 'SimpleSnitch',
    seed_provider: [{ class_name: 'org.apache.cassandra.locator.SimpleSeedProvider', parameters: seeds }],
    auto_bootstrap: false,
    listen_address: '127.0.0.1',
    rpc_address: '127.0.0.1',
    native_transport_port: port,
    storage_port: storagePort,
    commitlog_sync: 'periodic',
    commitlog_sync_period: '1s',
    ...options.settings,
  };
  await mkdir(directory, { recursive: true });
  // JSON is YAML too.
  await writeFile(join(directory, 'cassandra.yaml'), JSON.stringify(settings, null, 2));
  // Cassandra and its log find their settings on the class path.
  const classPath = [directory, STORES, `${jars}/*`].join(':');
  const jvm = [`@${STORES}/jvm.options`, `-Xms${Math.min(heapMb, 256)}M`, `-Xmx${heapMb}M`, ...flags];
  const main = [
    `-Dcassandra.storagedir=${directory}`,
    '-cp',
    classPath,
    'org.apache.cassandra.service.CassandraDaemon',
  ];
  const server = await startServer('Cassandra', [...GIVING_WAY, 'java', ...jvm, ...main], 'Startup complete', options);
  return { ...server, datacenter: 'datacenter1' };
}
