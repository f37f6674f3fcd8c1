import { describe, expect, it } from 'vitest';
import { parseConfig, UsageError } from '../../src/config.ts';

function problemOf(environment: Record<string, string>): string {
  try {
    parseConfig(environment);
  } catch (error) {
    expect(error).toBeInstanceOf(UsageError);
    return error instanceof Error ? error.message : '';
  }
  return '';
}

describe('the environment', () => {
  it('needs nothing to be set', () => {
    expect(parseConfig({})).toMatchObject({
      CASSANDRA_KEYSPACE: 'vehicle_data',
      CASSANDRA_CONSISTENCY: 'LOCAL_QUORUM',
      AFTER_LOAD: 'keep',
      MAX_REJECTED_RATIO: 0.5,
      SETTLE_SECONDS: 5,
      SOURCE_TIME_ZONE: 'UTC',
    });
  });

  it('may hold empty values, which count as not set, and variables of others', () => {
    expect(parseConfig({ DATA_DIR: '', CASSANDRA_PORT: '', BOARD_PASSWORD: '', HOME: '/x' })).toEqual(parseConfig({}));
  });

  it('is read as numbers, lists and absolute paths', () => {
    const config = parseConfig({
      CASSANDRA_CONTACT_POINTS: ' one , two,',
      CASSANDRA_PORT: '9043',
      SETTLE_SECONDS: '0.5',
      CASSANDRA_TLS: 'true',
      DATA_DIR: 'in',
    });
    expect(config).toMatchObject({
      CASSANDRA_CONTACT_POINTS: ['one', 'two'],
      CASSANDRA_PORT: 9043,
      SETTLE_SECONDS: 0.5,
      CASSANDRA_TLS: true,
      DATA_DIR: `${process.cwd()}/in`,
    });
  });

  it('is refused with every bad variable at once, and without any value', () => {
    const bad = {
      REDIS_URL: 'http://user:sEcReT1@host',
      CASSANDRA_KEYSPACE: 'Drop sEcReT2',
      CASSANDRA_PORT: '70000',
      CASSANDRA_CONSISTENCY: 'sEcReT3',
      PROCESSORS: '0',
      INGEST_CONCURRENCY: 'sEcReT4',
      MAX_REJECTED_RATIO: '1.5',
      AFTER_LOAD: 'sEcReT5',
      SOURCE_TIME_ZONE: 'Mars/sEcReT6',
      SETTLE_SECONDS: '-1',
      CASSANDRA_TLS: 'sEcReT7',
      BOARD_PASSWORD: 'sEcReT8',
      CASSANDRA_CONTACT_POINTS: ' , ',
    };
    const message = problemOf(bad);
    expect(message).toContain(`${Object.keys(bad).length} bad value(s)`);
    for (const name of Object.keys(bad)) expect(message).toMatch(new RegExp(`^ {2}${name}: .+$`, 'm'));
    expect(message).not.toMatch(/sEcReT/);
  });

  it.each(['abc', '1e400', '0x10junk', '1;2'])('takes no %j for a number', (text) => {
    expect(problemOf({ INGEST_ATTEMPTS: text })).toContain('INGEST_ATTEMPTS');
  });

  it.each(['', ' '])('takes %j for not set, and not for 0', (text) => {
    expect(parseConfig({ INGEST_ATTEMPTS: text, DURABLE_SECONDS: text })).toEqual(parseConfig({}));
  });

  it.each([
    { AGGREGATION_CRON: 'every hour' },
    { AGGREGATION_CRON: '61 * * * *' },
    { AGGREGATION_CRON: '0 0 31 2,4 *' },
    { AGGREGATION_CRON: 'H 4 * * *' },
    { REDIS_TLS_CA_FILE: '/etc/ssl/certs' },
    { CASSANDRA_TLS_CA_FILE: '/nothing' },
  ])('takes no value that would only fail later: %j', (environment) => {
    expect(problemOf(environment)).toContain(Object.keys(environment)[0]);
    for (const text of ['5 * * * *', '0 4 * * THU'])
      expect(parseConfig({ AGGREGATION_CRON: text }).AGGREGATION_CRON).toBe(text);
  });

  it.each(['loopback, uniquelocal', '10.0.0.0/8', '192.0.2.1,2001:db8::/32', '::1'])('takes the proxies %s', (list) => {
    expect(parseConfig({ BOARD_PROXIES: list })).toMatchObject({ BOARD_PROXIES: list });
  });

  it('takes a number of proxies', () => {
    expect(parseConfig({ BOARD_PROXIES: '2' }).BOARD_PROXIES).toBe(2);
  });

  it.each([
    ...['everyone', '12', '10.0.0.0/33', '10.0.0.0/x', 'loopback,,', 'proxy.example'],
    ...['0.0.0.0/0', '::/0', '10.0.0.0/', '10.0.0.0/8/9'],
  ])('takes no proxies %s', (list) => {
    expect(problemOf({ BOARD_PROXIES: list })).toContain('BOARD_PROXIES: not a number of proxies');
  });

  it('names a user of Cassandra only with a password', () => {
    expect(problemOf({ CASSANDRA_USERNAME: 'me' })).toContain('CASSANDRA_PASSWORD');
    expect(parseConfig({ CASSANDRA_USERNAME: 'me', CASSANDRA_PASSWORD: 'x' }).CASSANDRA_USERNAME).toBe('me');
  });
});
