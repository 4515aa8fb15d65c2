// Binary messages, and what is sure of a text message. A binary message is an offset of eight bytes, most significant
// first, and the bytes that stand there.
import type { FromPage, ToPage } from './messages';

const OFFSET = 8;

export interface Frame {
  readonly at: number;
  readonly bytes: Uint8Array;
}

export function encode({ at, bytes }: Frame): Uint8Array<ArrayBuffer> {
  const message = new Uint8Array(OFFSET + bytes.length);
  new DataView(message.buffer).setBigUint64(0, BigInt(at));
  message.set(bytes, OFFSET);
  return message;
}

/** `undefined` where it is none, or stands further on than numbers are exact. */
export function decode(message: ArrayBuffer): Frame | undefined {
  if (message.byteLength < OFFSET) return undefined;
  const at = new DataView(message).getBigUint64(0);
  if (at > BigInt(Number.MAX_SAFE_INTEGER)) return undefined;
  return { at: Number(at), bytes: new Uint8Array(message, OFFSET) };
}

/** A text message. Its types are the gateway's own, of the same build: only that it is one at all is looked at. */
export function parse(text: string): ToPage | undefined {
  try {
    const message: unknown = JSON.parse(text);
    const is = typeof message === 'object' && message !== null && 'type' in message && typeof message.type === 'string';
    return is ? (message as ToPage) : undefined;
  } catch {
    return undefined;
  }
}

export function print(message: FromPage): string {
  return JSON.stringify(message);
}
