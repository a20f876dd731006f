/* The C side of bench/device_latency.py.
 *
 *   peer serve            answers USB/IP: one import, then each CMD_SUBMIT at once (prints its port first)
 *   peer client PORT N    imports from such a server, N control transfers of 18 bytes on a blocking socket,
 *                         prints the time of each in nanoseconds, one a line
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEADER = 48, DEVICE = 312, MAX = 1 << 20 };

static int read_all(int fd, void *to, size_t size)
{
    for (size_t got = 0; got < size;) {
        ssize_t n = recv(fd, (char *)to + got, size - got, 0);
        if (n <= 0)
            return 0;
        got += n;
    }
    return 1;
}

static uint32_t field(const unsigned char *pdu, int at)
{
    uint32_t value;
    memcpy(&value, pdu + at, 4);
    return ntohl(value);
}

static void set(unsigned char *pdu, int at, uint32_t value)
{
    value = htonl(value);
    memcpy(pdu + at, &value, 4);
}

static void serve_one(int fd)
{
    static unsigned char in[MAX], out[HEADER + MAX];
    unsigned char import[8 + DEVICE] = {1, 0x11, 0, 3};
    if (!read_all(fd, in, 40))
        return;
    memcpy(import + 8 + 256, in + 8, 32);
    set(import, 8 + 288, 1);
    set(import, 8 + 292, 2);
    set(import, 8 + 296, 3);
    send(fd, import, sizeof import, 0);
    while (read_all(fd, in, HEADER)) {
        uint32_t inward = field(in, 12), length = field(in, 24);
        if (length > MAX || (!inward && length && !read_all(fd, in + HEADER, length)))
            return;
        memset(out, 0, HEADER);
        set(out, 0, 3);
        memcpy(out + 4, in + 4, 4);
        set(out, 24, length);
        send(fd, out, HEADER + (inward ? length : 0), 0);
    }
}

static int serve(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 8))
        return 1;
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        serve_one(fd);
        close(fd);
    }
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int client(int port, int rounds)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    unsigned char request[40] = {1, 0x11, 0x80, 3, 0, 0, 0, 0, '1', '-', '1'}, reply[8 + DEVICE];
    unsigned char pdu[HEADER] = {0}, data[HEADER + 64];
    static const unsigned char setup[8] = {0x80, 6, 0, 1, 0, 0, 18, 0};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address))
        return 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    send(fd, request, sizeof request, 0);
    if (!read_all(fd, reply, sizeof reply))
        return 1;
    for (int i = 1; i <= rounds; i++) {
        int64_t start = now();
        set(pdu, 0, 1);
        set(pdu, 4, i);
        set(pdu, 8, 1 << 16 | 2);
        set(pdu, 12, 1);
        set(pdu, 24, 18);
        memcpy(pdu + 40, setup, 8);
        send(fd, pdu, HEADER, 0);
        if (!read_all(fd, data, HEADER) || !read_all(fd, data + HEADER, field(data, 24)))
            return 1;
        printf("%lld\n", (long long)(now() - start));
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "serve"))
        return serve();
    if (argc == 4 && !strcmp(argv[1], "client"))
        return client(atoi(argv[2]), atoi(argv[3]));
    fprintf(stderr, "usage: peer serve | peer client PORT ROUNDS\n");
    return 2;
}
