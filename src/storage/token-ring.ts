/** The first and the last token of one share of the ring. Those of the Murmur3 partitioner are 64-bit integers from -2^63. */
export function tokensOf(share: number, shares: number): [bigint, bigint] {
  const first = (index: number) => (2n ** 64n * BigInt(index)) / BigInt(shares) - 2n ** 63n;
  return [first(share), first(share + 1) - 1n];
}
