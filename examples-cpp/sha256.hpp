// sha256.hpp - SHA-256 of a text, in hexadecimal, because the standard library has none.
#ifndef SHA256_HPP
#define SHA256_HPP

#include <cstdint>
#include <string>

inline std::string sha256(std::string text) {
    static const uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    const auto rotate = [](uint32_t x, int by) { return x >> by | x << (32 - by); };
    const uint64_t bits = uint64_t{text.size()} * 8;

    text += '\x80';
    text.resize((text.size() + 8 + 63) / 64 * 64 - 8);
    for (int shift = 56; shift >= 0; shift -= 8) {
        text += static_cast<char>(bits >> shift);
    }
    for (size_t at = 0; at < text.size(); at += 64) {
        uint32_t w[64] = {};
        for (size_t i = 0; i < 64; i++) {
            w[i / 4] = w[i / 4] << 8 | static_cast<uint8_t>(text[at + i]);
        }
        for (int i = 16; i < 64; i++) {
            const uint32_t a = w[i - 15], b = w[i - 2];
            w[i] = w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3);
            w[i] += w[i - 7] + (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
        }
        uint32_t v[8];
        for (int i = 0; i < 8; i++) {
            v[i] = h[i];
        }
        for (int i = 0; i < 64; i++) {
            const uint32_t e = v[4], a = v[0];
            const uint32_t choice = (e & v[5]) ^ (~e & v[6]), majority = (a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]);
            const uint32_t one = v[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + choice + k[i] + w[i];
            const uint32_t two = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + majority;
            for (int j = 7; j > 0; j--) {
                v[j] = v[j - 1];
            }
            v[4] += one;
            v[0] = one + two;
        }
        for (int i = 0; i < 8; i++) {
            h[i] += v[i];
        }
    }
    std::string hex;
    for (int i = 0; i < 64; i++) {
        hex += "0123456789abcdef"[h[i / 8] >> (28 - i % 8 * 4) & 15];
    }
    return hex;
}

#endif
