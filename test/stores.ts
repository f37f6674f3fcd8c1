import { freePort } from '../src/local/ports.ts';

/** A free TCP port below those that systems give to connections (32,768 on Linux): nobody takes it while its server is away. */
export const quietPort = (host?: string) => freePort(10_000 + Math.floor(Math.random() * 20_000), host);

/** Settings of Cassandra: on a machine that stands still for a while, a question is to be answered late, and not refused. */
export const PATIENT = {
  read_request_timeout: '60s',
  range_request_timeout: '60s',
  write_request_timeout: '60s',
  cas_contention_timeout: '60s',
  truncate_request_timeout: '60s',
  request_timeout: '60s',
};
