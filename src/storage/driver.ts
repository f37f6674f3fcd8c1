import { Client, type ClientOptions } from 'cassandra-driver';
import { oneAtATime } from './together.ts';

/** What the driver calls when its control connection, by which it learns of nodes and schemas, is lost. */
interface ControlConnection {
  _refresh(hosts?: Iterator<unknown>): Promise<void>;
}

/** Where the driver looks up what it knows of a statement. */
interface Metadata {
  getPreparedInfo(keyspace: string, query: string): object;
}

/**
 * Makes a client of the driver whose process survives the loss of its control connection, and which finds a statement by its
 * text.
 *
 * When that connection is lost again while it is being made anew, the driver makes it twice at once. Each clears what the
 * other has set, and fails where nobody catches it, which ends the process (NODEJS-681, open in 4.10). Here it is made once
 * at a time: what is under way notices a loss by itself. With hosts, it is a part of that, and tries the next of them.
 *
 * To find a statement, the driver joins keyspace and text anew each time: some 10 µs for the 7,000 characters of a batch.
 */
export function createClient(options: ClientOptions): Client {
  const client = new Client(options);
  const { controlConnection: control } = client as unknown as { controlConnection: ControlConnection };
  const refresh = control._refresh.bind(control);
  const remake = oneAtATime(() => refresh());
  control._refresh = (hosts) => (hosts === undefined ? remake() : refresh(hosts));
  const { metadata } = client as unknown as { metadata: Metadata };
  const find = metadata.getPreparedInfo.bind(metadata);
  const found = new Map<string, object>();
  metadata.getPreparedInfo = (keyspace, query) => {
    let info = found.get(query);
    if (info === undefined) found.set(query, (info = find(keyspace, query)));
    return info;
  };
  return client;
}
