const FORM = /^redis(s?)(?:\+(sentinel|cluster))?:\/\/(?:([^/?#]*)@)?([^/?#@]+)\/?([^?#]*)(?:\?([^#]*))?$/;

/**
 * Reads REDIS_URL, which is one of
 *
 *     redis[s]://[user:password@]host[:port][/database]
 *     redis[s]+cluster://[user:password@]host[:port][,host[:port]…]
 *     redis[s]+sentinel://[user:password@]host[:port][,host[:port]…]/primary[/database]
 *
 * The last one may end with `?sentinel_username=…&sentinel_password=…`, the login at the sentinels.
 *
 * @throws TypeError or URIError, which may quote the address with its password, when it is none of them
 */
export function parseRedisUrl(url: string) {
  const [form, tls, kind = 'single', login = '', hosts = '', path = '', query] = FORM.exec(url) ?? [];
  const [primary = '', database = '', more] = kind === 'sentinel' ? path.split('/') : ['', path];
  const nodes = hosts.split(',').map((each) => {
    const { hostname, port } = new URL(`redis://${each}`);
    return { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || (kind === 'sentinel' ? 26_379 : 6_379)) };
  });
  const isOfKind = kind === 'sentinel' ? primary !== '' : kind === 'cluster' ? path === '' : nodes.length === 1;
  const isWhole = form !== undefined && nodes.every(({ host }) => host !== '') && more === undefined;
  if (!isOfKind || !isWhole || !/^\d*$/.test(database)) throw new TypeError('not an address of Redis');
  const { username, password } = new URL(`redis://${login}@host`);
  return {
    kind,
    isTls: tls !== '',
    nodes,
    primary,
    database: Number(database),
    username: decodeURIComponent(username),
    password: decodeURIComponent(password),
    sentinelLogin: new URLSearchParams(query),
  };
}
