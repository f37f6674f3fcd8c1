/** Keeps a value in a map that holds `max` at most: when it is full, it starts anew. @returns the value */
export function remember<Key, Value>(known: Map<Key, Value>, key: Key, value: Value, max: number): Value {
  if (known.size >= max) known.clear();
  known.set(key, value);
  return value;
}
