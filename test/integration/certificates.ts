import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';

/** Files of an authority that nobody else knows, and of a server on 127.0.0.1 that it vouches for. */
export interface Certificates {
  readonly authority: string;
  readonly certificate: string;
  readonly key: string;
  /** The server's certificate and key for Java, PKCS 12. */
  readonly keystore: string;
}

export async function makeCertificates(folder: string, keystorePassword: string): Promise<Certificates> {
  const at = (name: string) => join(folder, name);
  const openssl = (...args: string[]) => execa('openssl', args, { cwd: folder });
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  await openssl('req', '-x509', ...newKey, '-subj', '/CN=authority', '-keyout', 'ca.key', '-out', 'ca.pem');
  await openssl('req', ...newKey.slice(0, -2), '-subj', '/CN=store', '-keyout', 'server.key', '-out', 'server.csr');
  await writeFile(at('names'), 'subjectAltName=IP:127.0.0.1,DNS:localhost');
  const sign = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'names'];
  await openssl('x509', '-req', '-in', 'server.csr', ...sign, '-out', 'server.pem');
  const pair = ['-in', 'server.pem', '-inkey', 'server.key', '-certfile', 'ca.pem'];
  await openssl('pkcs12', '-export', ...pair, '-out', 'server.p12', '-passout', `pass:${keystorePassword}`);
  return { authority: at('ca.pem'), certificate: at('server.pem'), key: at('server.key'), keystore: at('server.p12') };
}
