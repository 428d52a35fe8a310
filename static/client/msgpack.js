/**
 * MessagePack, as far as the protocol uses it: the values of JSON, and bytes.
 *
 * Of https://github.com/msgpack/msgpack/blob/master/spec.md it has no extensions, and only strings
 * as keys. Integers that JavaScript can't represent are rounded, as by `JSON.parse`.
 *
 * @module
 */

/** How deep arrays and maps may be nested. */
export const MAX_DEPTH = 1_000;

/**
 * @param {unknown} value What `JSON.stringify` takes, without `toJSON`, and `Uint8Array`s.
 * @returns {Uint8Array<ArrayBuffer>}
 * @throws {TypeError} It is something else, or too deeply nested.
 */
export function encode(value) {
  const writer = new Writer();
  writer.write(value, 0);
  return writer.bytes;
}

/**
 * @param {ArrayBuffer | Uint8Array} bytes One value.
 * @returns {any} Bytes in it are `Uint8Array`s with copies.
 * @throws {SyntaxError} It is not one value, or has a type that the protocol does not use.
 */
export function decode(bytes) {
  const reader = new Reader(bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes));
  const value = reader.read(0);
  reader.end();
  return value;
}

class Writer {
  #bytes = new Uint8Array(256);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  /** What was written. */
  get bytes() {
    return this.#bytes.subarray(0, this.#length);
  }

  /**
   * @param {unknown} value
   * @param {number} depth
   */
  write(value, depth) {
    if (depth > MAX_DEPTH) throw new TypeError("nested too deeply for MessagePack");
    if (value === null || value === undefined) this.#byte(0xc0);
    else if (typeof value === "boolean") this.#byte(value ? 0xc3 : 0xc2);
    else if (typeof value === "number") this.#number(value);
    else if (typeof value === "string") {
      const text = new TextEncoder().encode(value);
      this.#head(text.length, 0xa0, 32, 0xd9);
      this.#append(text);
    } else if (value instanceof Uint8Array) {
      this.#head(value.length, 0, 0, 0xc4);
      this.#append(value);
    } else if (Array.isArray(value)) {
      this.#head(value.length, 0x90, 16, 0xdb);
      for (const item of value) this.write(item, depth + 1);
    } else if (typeof value === "object") {
      const entries = Object.entries(value).filter(([, item]) => item !== undefined);
      this.#head(entries.length, 0x80, 16, 0xdd);
      for (const [key, item] of entries) {
        this.write(key, depth);
        this.write(item, depth + 1);
      }
    } else {
      throw new TypeError(`MessagePack has no ${typeof value}`);
    }
  }

  /** @param {number} value */
  #number(value) {
    if (!Number.isSafeInteger(value)) {
      this.#byte(0xcb);
      const at = this.#reserve(8);
      this.#view.setFloat64(at, value);
    } else if (value >= 0) {
      if (value < 0x80) this.#byte(value);
      else if (value < 0x100) this.#uint8(0xcc, value);
      else if (value < 0x10000) this.#uint16(0xcd, value);
      else if (value < 0x100000000) this.#uint32(0xce, value);
      else {
        this.#byte(0xcf);
        const at = this.#reserve(8);
        this.#view.setBigUint64(at, BigInt(value));
      }
    } else if (value >= -0x20) this.#byte(value & 0xff);
    else if (value >= -0x80) this.#uint8(0xd0, value & 0xff);
    else if (value >= -0x8000) this.#uint16(0xd1, value & 0xffff);
    else if (value >= -0x80000000) this.#uint32(0xd2, value >>> 0);
    else {
      this.#byte(0xd3);
      const at = this.#reserve(8);
      this.#view.setBigInt64(at, BigInt(value));
    }
  }

  /**
   * Write the head of a string, bytes, an array or a map.
   * @param {number} length
   * @param {number} short The first byte of a short one, without its length.
   * @param {number} room The length from which one is not short.
   * @param {number} type The first byte before a length of one byte; the next is for two bytes, the
   *   one after for four. Arrays and maps have no lengths of one byte.
   */
  #head(length, short, room, type) {
    if (length < room) this.#byte(short | length);
    else if (length < 0x100 && type < 0xdb) this.#uint8(type, length);
    else if (length < 0x10000) this.#uint16(type + 1, length);
    else this.#uint32(type + 2, length);
  }

  /** @param {number} value */
  #byte(value) {
    const at = this.#reserve(1);
    this.#bytes[at] = value;
  }

  /**
   * @param {number} type
   * @param {number} value
   */
  #uint8(type, value) {
    this.#byte(type);
    this.#byte(value);
  }

  /**
   * @param {number} type
   * @param {number} value
   */
  #uint16(type, value) {
    this.#byte(type);
    const at = this.#reserve(2);
    this.#view.setUint16(at, value);
  }

  /**
   * @param {number} type
   * @param {number} value
   */
  #uint32(type, value) {
    this.#byte(type);
    const at = this.#reserve(4);
    this.#view.setUint32(at, value);
  }

  /** @param {Uint8Array} bytes */
  #append(bytes) {
    const at = this.#reserve(bytes.length);
    this.#bytes.set(bytes, at);
  }

  /**
   * Reserve bytes and return their offset. It may replace the buffer, so it is called before that
   * is accessed.
   * @param {number} size
   */
  #reserve(size) {
    const at = this.#length;
    this.#length += size;
    if (this.#length > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.#length, 2 * this.#bytes.length));
      larger.set(this.#bytes.subarray(0, at));
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }
}

class Reader {
  #bytes;
  #view;
  #at = 0;
  #text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** @throws {SyntaxError} Bytes are left. */
  end() {
    if (this.#at < this.#bytes.length) throw new SyntaxError("more than one MessagePack value");
  }

  /**
   * @param {number} depth
   * @returns {any}
   * @throws {SyntaxError} See {@link decode}.
   */
  read(depth) {
    const first = this.#uint(1);
    if (first < 0x80) return first;
    if (first < 0x90) return this.#map(first & 0x0f, depth);
    if (first < 0xa0) return this.#array(first & 0x0f, depth);
    if (first < 0xc0) return this.#string(first & 0x1f);
    if (first >= 0xe0) return first - 0x100;
    switch (first) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.#take(this.#uint(1 << (first - 0xc4))).slice();
      case 0xca:
        return this.#view.getFloat32(this.#skip(4));
      case 0xcb:
        return this.#view.getFloat64(this.#skip(8));
      case 0xcc:
      case 0xcd:
      case 0xce:
        return this.#uint(1 << (first - 0xcc));
      case 0xcf:
        return Number(this.#view.getBigUint64(this.#skip(8)));
      case 0xd0:
        return this.#view.getInt8(this.#skip(1));
      case 0xd1:
        return this.#view.getInt16(this.#skip(2));
      case 0xd2:
        return this.#view.getInt32(this.#skip(4));
      case 0xd3:
        return Number(this.#view.getBigInt64(this.#skip(8)));
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.#string(this.#uint(1 << (first - 0xd9)));
      case 0xdc:
      case 0xdd:
        return this.#array(this.#uint(2 << (first - 0xdc)), depth);
      case 0xde:
      case 0xdf:
        return this.#map(this.#uint(2 << (first - 0xde)), depth);
      default:
        throw new SyntaxError("MessagePack that the protocol has not");
    }
  }

  /**
   * @param {number} length
   * @param {number} depth
   */
  #array(length, depth) {
    this.#check(length, depth);
    return Array.from({ length }, () => this.read(depth + 1));
  }

  /**
   * @param {number} length
   * @param {number} depth
   */
  #map(length, depth) {
    this.#check(2 * length, depth);
    // Not by assignment, which would treat a key such as `__proto__` differently.
    return Object.fromEntries(
      Array.from({ length }, () => {
        const key = this.read(MAX_DEPTH);
        if (typeof key !== "string") throw new SyntaxError("a key that is no string");
        return [key, this.read(depth + 1)];
      }),
    );
  }

  /**
   * Reject an impossible length before allocating: each value has at least a byte.
   * @param {number} values
   * @param {number} depth
   */
  #check(values, depth) {
    if (depth >= MAX_DEPTH) throw new SyntaxError("MessagePack that is nested too deeply");
    if (values > this.#bytes.length - this.#at) throw new SyntaxError("MessagePack that ends early");
  }

  /** @param {number} length */
  #string(length) {
    try {
      return this.#text.decode(this.#take(length));
    } catch (error) {
      throw error instanceof SyntaxError ? error : new SyntaxError("a string that is not UTF-8");
    }
  }

  /** @param {number} size */
  #uint(size) {
    const at = this.#skip(size);
    if (size === 1) return this.#view.getUint8(at);
    return size === 2 ? this.#view.getUint16(at) : this.#view.getUint32(at);
  }

  /** @param {number} length */
  #take(length) {
    const at = this.#skip(length);
    return this.#bytes.subarray(at, at + length);
  }

  /**
   * Skip bytes and return their offset.
   * @param {number} size
   */
  #skip(size) {
    const at = this.#at;
    if (size > this.#bytes.length - at) throw new SyntaxError("MessagePack that ends early");
    this.#at += size;
    return at;
  }
}
