import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../src/config.ts';
import { parseRedisUrl } from '../../src/queues/redis-url.ts';

describe('REDIS_URL', () => {
  it.each([
    ['redis://host', { kind: 'single', isTls: false, nodes: [{ host: 'host', port: 6379 }], database: 0 }],
    ['redis://me:p%40ss@10.0.0.1:7/3', { username: 'me', password: 'p@ss', database: 3 }],
    ['redis://me:p@ss:word@host', { username: 'me', password: 'p@ss:word', nodes: [{ host: 'host', port: 6379 }] }],
    ['rediss://:secret@[::1]:7/', { isTls: true, username: '', password: 'secret', nodes: [{ host: '::1', port: 7 }] }],
  ])('names one server: %s', (url, expected) => {
    expect(parseRedisUrl(url)).toMatchObject(expected);
  });

  it('names sentinels and the primary that they watch, and perhaps a login of their own', () => {
    const url = 'rediss+sentinel://me:secret@a,b:5,[::1]/main/2?sentinel_username=s&sentinel_password=x%2Fy';
    const { sentinelLogin, ...parsed } = parseRedisUrl(url);
    expect(parsed).toEqual({
      kind: 'sentinel',
      isTls: true,
      nodes: [
        { host: 'a', port: 26379 },
        { host: 'b', port: 5 },
        { host: '::1', port: 26379 },
      ],
      primary: 'main',
      database: 2,
      username: 'me',
      password: 'secret',
    });
    expect(Object.fromEntries(sentinelLogin)).toEqual({ sentinel_username: 's', sentinel_password: 'x/y' });
  });

  it('names some nodes of a cluster', () => {
    const nodes = [
      { host: 'a', port: 7000 },
      { host: 'b', port: 6379 },
    ];
    expect(parseRedisUrl('redis+cluster://a:7000,b')).toMatchObject({ kind: 'cluster', isTls: false, nodes });
  });

  it.each([
    '',
    'redis://',
    'redis:///1',
    'http://host',
    'redis-sentinel://host/main',
    'redis://host:99999',
    'redis://host/name',
    'redis://host/1/2',
    'redis://a,b',
    'redis://ho st',
    'redis://me:100%@host',
    'redis://me:sEcReT/1@host',
    'redis+cluster://host/1',
    'redis+cluster://host,',
    'redis+sentinel://host',
    'redis+sentinel://host/main/x',
    'redis+sentinel://host/main/1/2',
  ])('is refused when it is none of these: %s', (url) => {
    expect(() => parseRedisUrl(url)).toThrow();
    if (url === '') return;
    expect(() => parseConfig({ REDIS_URL: url })).toThrow(
      /^The environment has 1 bad value[^]*REDIS_URL: not redis\[s\]:/,
    );
    expect(() => parseConfig({ REDIS_URL: url })).not.toThrow(/sEcReT|100/);
  });

  it('of a cluster needs a prefix that keeps all keys on one node', () => {
    const REDIS_URL = 'redis+cluster://host';
    expect(parseConfig({ REDIS_URL })).toMatchObject({ QUEUE_PREFIX: '{vehicle-data}' });
    for (const QUEUE_PREFIX of ['vehicles', '{}', '{vehicles', '}{']) {
      expect(() => parseConfig({ REDIS_URL, QUEUE_PREFIX }), QUEUE_PREFIX).toThrow(
        /^QUEUE_PREFIX needs a part in braces/,
      );
      expect(parseConfig({ REDIS_URL: 'redis://host', QUEUE_PREFIX })).toMatchObject({ QUEUE_PREFIX });
    }
  });
});
