import { connect, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * What a proxy does to the connections that go through it. `cut` closes them and refuses new ones; `swallow` takes what
 * is sent and passes nothing on; `delay` passes everything on half a second later; `half-open` is the silent loss of a
 * connection: what is open now never hears anything again, while new connections work.
 */
export type Trouble = 'none' | 'cut' | 'swallow' | 'delay' | 'half-open';

const DELAY_MS = 500;

export interface Proxy {
  readonly port: number;
  /** Starts a trouble or, with 'none', ends it. */
  set(trouble: Trouble): void;
  close(): void;
}

/** Starts a TCP proxy on a free port of loopback before the server at `target`. */
export async function startProxy(target: number): Promise<Proxy> {
  let trouble: Trouble = 'none';
  /** Both ends of each connection; a deaf one passes nothing on any more. */
  const pairs = new Set<{ near: Socket; far: Socket; deaf: boolean }>();

  const server = createServer((near) => {
    near.on('error', () => undefined);
    if (trouble === 'cut') {
      near.resetAndDestroy();
      return;
    }
    const far = connect({ port: target, host: '127.0.0.1' });
    const pair = { near, far, deaf: trouble === 'swallow' };
    pairs.add(pair);
    const end = () => {
      near.destroy();
      far.destroy();
      pairs.delete(pair);
    };
    near.on('close', end).setNoDelay();
    far.on('error', () => undefined).setNoDelay();
    // The far end of a deaf connection goes without a word.
    far.on('close', () => pair.deaf || end());
    const forward = (from: Socket, to: Socket) => {
      // One after the other: what is sent once the delay is over must not overtake what is still on its way.
      let onItsWay = Promise.resolve();
      from.on('data', (data: Buffer) => {
        const due = Date.now() + (trouble === 'delay' ? DELAY_MS : 0);
        onItsWay = onItsWay.then(async () => {
          if (due > Date.now()) await sleep(due - Date.now());
          if (!pair.deaf && to.writable) to.write(data);
        });
      });
    };
    forward(near, far);
    forward(far, near);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const reset = (only: (pair: { deaf: boolean }) => boolean) => {
    for (const pair of [...pairs].filter(only)) {
      pair.near.resetAndDestroy();
      pair.far.destroy();
      pairs.delete(pair);
    }
  };
  return {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    set: (next) => {
      // What was swallowed is gone: such a connection is of no use any more, and TCP says so once it is heard again.
      if (trouble === 'swallow') reset(({ deaf }) => deaf);
      trouble = next;
      if (next === 'cut') reset(() => true);
      if (next === 'swallow' || next === 'half-open') for (const pair of pairs) pair.deaf = true;
      if (next === 'half-open') for (const { far } of pairs) far.destroy();
    },
    close: () => {
      server.close();
      reset(() => true);
    },
  };
}
