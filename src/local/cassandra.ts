import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Client } from 'cassandra-driver';
import { checkJava, fetchArtifact } from './maven.ts';
import { freePort } from './ports.ts';
import { startServer, type LocalServer } from './server.ts';

const CASSANDRA = { groupId: 'org.apache.cassandra', artifactId: 'cassandra-all', version: '5.0.6' };

/** What Cassandra's own options for Java 17 open up to it. */
const EXPORTS = [
  'java.base/jdk.internal.misc',
  'java.base/java.lang.ref',
  'java.management.rmi/com.sun.jmx.remote.internal.rmi',
  'java.rmi/sun.rmi.registry',
  'java.rmi/sun.rmi.server',
  'java.sql/java.sql',
  'jdk.unsupported/sun.misc',
];
const OPENS = [
  'java.base/java.io',
  'java.base/java.lang',
  'java.base/java.lang.module',
  'java.base/java.lang.reflect',
  'java.base/java.nio',
  'java.base/java.util',
  'java.base/java.util.concurrent',
  'java.base/java.util.concurrent.atomic',
  'java.base/jdk.internal.loader',
  'java.base/jdk.internal.math',
  'java.base/jdk.internal.module',
  'java.base/jdk.internal.ref',
  'java.base/jdk.internal.reflect',
  'java.base/jdk.internal.util.jar',
  'java.base/sun.nio.ch',
  'jdk.management/com.sun.management.internal',
];

const LOGBACK = `<configuration>
  <appender name="FILE" class="ch.qos.logback.core.rolling.RollingFileAppender">
    <file>\${cassandra.storagedir}/system.log</file>
    <rollingPolicy class="ch.qos.logback.core.rolling.FixedWindowRollingPolicy">
      <fileNamePattern>\${cassandra.storagedir}/system.%i.log</fileNamePattern><minIndex>1</minIndex><maxIndex>1</maxIndex>
    </rollingPolicy>
    <triggeringPolicy class="ch.qos.logback.core.rolling.SizeBasedTriggeringPolicy"><maxFileSize>20MB</maxFileSize></triggeringPolicy>
    <encoder><pattern>%-5level [%thread] %date{ISO8601} %F:%L - %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="FILE"/></root>
</configuration>
`;

/** Folder with Cassandra's jars, fetched the first time; checks that there is a Java to run them. */
export async function findCassandraJars(libDirectory: string, signal?: AbortSignal): Promise<string> {
  await checkJava(signal);
  return fetchArtifact(CASSANDRA, libDirectory, { signal });
}

export interface LocalCassandra extends LocalServer {
  readonly host: string;
  readonly port: number;
  readonly datacenter: string;
}

const DATACENTER = 'datacenter1';

async function answers(host: string, port: number): Promise<boolean> {
  const client = new Client({
    contactPoints: [host],
    protocolOptions: { port },
    localDataCenter: DATACENTER,
    socketOptions: { connectTimeout: 2_000, readTimeout: 2_000 },
    pooling: { coreConnectionsPerHost: { 0: 1, 1: 1, 2: 1 } },
  });
  try {
    await client.connect();
    return true;
  } catch {
    return false;
  } finally {
    await client.shutdown();
  }
}

/**
 * Starts a Cassandra node on loopback and resolves when it accepts CQL.
 *
 * Several nodes form a cluster when they have addresses of their own (127.0.0.11, …), one `storagePort`, one
 * `clusterName`, and the same `seeds`.
 *
 * @param jars folder of findCassandraJars
 * @param settings further settings of cassandra.yaml
 * @param flags further options of the JVM
 */
export async function startCassandra(options: {
  jars: string;
  directory: string;
  port: number;
  address?: string;
  storagePort?: number;
  seeds?: readonly string[];
  clusterName?: string;
  heapMb?: number;
  settings?: Readonly<Record<string, unknown>>;
  flags?: readonly string[];
  signal?: AbortSignal | undefined;
}): Promise<LocalCassandra> {
  const { jars, directory, port, address = '127.0.0.1', heapMb = 1_024, signal } = options;
  const storagePort = options.storagePort ?? (await freePort(0, address));
  const seeds = options.seeds ?? [`${address}:${storagePort}`];
  const at = (folder: string) => join(directory, folder);
  const settings = {
    cluster_name: options.clusterName ?? 'local',
    partitioner: 'org.apache.cassandra.dht.Murmur3Partitioner',
    endpoint_snitch: 'SimpleSnitch',
    seed_provider: [
      {
        class_name: 'org.apache.cassandra.locator.SimpleSeedProvider',
        parameters: [{ seeds: seeds.join(',') }],
      },
    ],
    num_tokens: 1,
    auto_bootstrap: false,
    listen_address: address,
    rpc_address: address,
    native_transport_port: port,
    storage_port: storagePort,
    data_file_directories: [at('data')],
    commitlog_directory: at('commitlog'),
    saved_caches_directory: at('saved_caches'),
    hints_directory: at('hints'),
    cdc_raw_directory: at('cdc_raw'),
    commitlog_sync: 'periodic',
    commitlog_sync_period: '1s',
    memtable_allocation_type: 'heap_buffers',
    ...options.settings,
  };
  await mkdir(at('tmp'), { recursive: true });
  // JSON is YAML too.
  await writeFile(at('cassandra.yaml'), JSON.stringify(settings, null, 2));
  await writeFile(at('logback.xml'), LOGBACK);

  const server = await startServer({
    name: 'Cassandra',
    command: 'java',
    args: [
      `-Dcassandra.storagedir=${directory}`,
      `-Dcassandra.config=file:${at('cassandra.yaml')}`,
      `-Dlogback.configurationFile=${at('logback.xml')}`,
      `-Djava.io.tmpdir=${at('tmp')}`,
      `-Xms${Math.min(heapMb, 256)}M`,
      `-Xmx${heapMb}M`,
      // Measured on two cores: ready in 5 s rather than 7, and a third more rows a second, than with C2 and G1.
      '-XX:+UseSerialGC',
      '-XX:TieredStopAtLevel=1',
      '-Xss384k',
      '-Djava.security.manager=allow',
      '-Djdk.attach.allowAttachSelf=true',
      '-Dcassandra-foreground=yes',
      '-Dcassandra.skip_wait_for_gossip_to_settle=0',
      '-Dcassandra.ring_delay_ms=0',
      '-Dcassandra.shutdown_announce_in_ms=0',
      ...(options.flags ?? []),
      ...EXPORTS.map((name) => `--add-exports=${name}=ALL-UNNAMED`),
      ...OPENS.map((name) => `--add-opens=${name}=ALL-UNNAMED`),
      '-cp',
      `${jars}/*`,
      'org.apache.cassandra.service.CassandraDaemon',
    ],
    directory,
    address: { contactPoint: address, port, datacenter: DATACENTER },
    isReady: () => answers(address, port),
    readyWithinMs: 120_000,
    stopWithinMs: 5_000,
    signal,
  });
  return { ...server, host: address, port, datacenter: DATACENTER };
}
