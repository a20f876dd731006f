/* The C side of bench/device_latency.py, bench/pyusb_backend.py and bench/relay.py.
 *
 *   peer serve [US]       answers USB/IP: lists and lends one device, answers each CMD_SUBMIT at once, or after so many
 *                         microseconds (prints its port first); endpoints 0x01 and 0x81 are bulk
 *   peer client PORT N [in | out]
 *                         imports from such a server, N control transfers of 18 bytes, or bulk transfers of 64 KiB, on a
 *                         blocking socket; prints the time of each in nanoseconds, one a line
 *   peer stream PORT N LENGTH DEPTH
 *                         imports likewise, N bulk IN transfers of LENGTH bytes, DEPTH of them in flight; prints the
 *                         time of all in nanoseconds
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEADER = 48, DEVICE = 312, MAX = 1 << 20, BULK = 64 << 10 };

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

static const unsigned char device_descriptor[18] = {18, 1, 0, 2, 255, 0, 0, 64, 9, 0x12, 1, 0, 0, 1, 0, 0, 0, 1};
static const unsigned char configuration[32] = {9, 2, 32, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 2, 255, 0, 0, 0,
                                                7, 5, 0x01, 2, 0, 2, 0, 7, 5, 0x81, 2, 0, 2, 0};

static void describe(unsigned char *device)
{
    strcpy((char *)device + 256, "1-1");
    set(device, 288, 1);
    set(device, 292, 2);
    set(device, 296, 3);
    set(device, 300, 0x12090001);
    set(device, 304, 0x0100ff00);
    set(device, 308, 0x00010101);
}

static void answer(const unsigned char *setup, unsigned char *data)
{
    if (setup[0] == 0x80 && setup[1] == 6 && setup[3] == 1)
        memcpy(data, device_descriptor, sizeof device_descriptor);
    if (setup[0] == 0x80 && setup[1] == 6 && setup[3] == 2)
        memcpy(data, configuration, sizeof configuration);
    if (setup[0] == 0x80 && setup[1] == 8)
        data[0] = 1;
}

static void serve_one(int fd, unsigned delay_us)
{
    static unsigned char in[MAX], out[HEADER + MAX];
    unsigned char reply[12 + DEVICE + 4] = {1, 0x11, 0, 3};
    if (!read_all(fd, in, 8))
        return;
    if (in[3] == 5) {
        reply[3] = 5;
        reply[11] = 1;
        describe(reply + 12);
        reply[12 + DEVICE] = 255;
        send(fd, reply, sizeof reply, 0);
        return;
    }
    if (!read_all(fd, in, 32))
        return;
    describe(reply + 8);
    send(fd, reply, 8 + DEVICE, 0);
    while (read_all(fd, in, HEADER)) {
        uint32_t inward = field(in, 12), length = field(in, 24);
        if (length > MAX || (!inward && length && !read_all(fd, in + HEADER, length)))
            return;
        memset(out, 0, HEADER);
        set(out, 0, 3);
        memcpy(out + 4, in + 4, 4);
        set(out, 24, length);
        if (inward && !field(in, 16))
            answer(in + 40, out + HEADER);
        if (delay_us)
            usleep(delay_us);
        send(fd, out, HEADER + (inward ? length : 0), 0);
    }
}

static int serve(unsigned delay_us)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 8))
        return 1;
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (!fork()) {
            serve_one(fd, delay_us);
            _exit(0);
        }
        close(fd);
    }
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int import(int port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    unsigned char request[40] = {1, 0x11, 0x80, 3, 0, 0, 0, 0, '1', '-', '1'}, reply[8 + DEVICE];
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address))
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    send(fd, request, sizeof request, 0);
    return read_all(fd, reply, sizeof reply) ? fd : -1;
}

static void ask(int fd, int seqnum, int length)
{
    unsigned char pdu[HEADER] = {0};
    set(pdu, 0, 1);
    set(pdu, 4, seqnum);
    set(pdu, 8, 1 << 16 | 2);
    set(pdu, 12, 1);
    set(pdu, 16, 1);
    set(pdu, 24, length);
    send(fd, pdu, HEADER, 0);
}

static int stream(int port, int rounds, int length, int depth)
{
    static unsigned char data[HEADER + MAX];
    int asked = 0, fd = import(port);
    int64_t start = now();
    if (fd < 0)
        return 1;
    for (int done = 0; done < rounds; done++) {
        while (asked < rounds && asked - done < depth)
            ask(fd, ++asked, length);
        if (!read_all(fd, data, HEADER) || !read_all(fd, data + HEADER, field(data, 24)))
            return 1;
    }
    printf("%lld\n", (long long)(now() - start));
    return 0;
}

static int client(int port, int rounds, int inward, int endpoint)
{
    static unsigned char pdu[HEADER + BULK], data[HEADER + BULK];
    uint32_t length = endpoint ? BULK : 18;
    static const unsigned char setup[8] = {0x80, 6, 0, 1, 0, 0, 18, 0};
    int fd = import(port);
    if (fd < 0)
        return 1;
    for (int i = 1; i <= rounds; i++) {
        int64_t start = now();
        set(pdu, 0, 1);
        set(pdu, 4, i);
        set(pdu, 8, 1 << 16 | 2);
        set(pdu, 12, inward);
        set(pdu, 16, endpoint);
        set(pdu, 24, length);
        if (!endpoint)
            memcpy(pdu + 40, setup, 8);
        if (send(fd, pdu, HEADER + (inward ? 0 : length), 0) < 0)
            return 1;
        if (!read_all(fd, data, HEADER) || (inward && !read_all(fd, data + HEADER, field(data, 24))))
            return 1;
        printf("%lld\n", (long long)(now() - start));
    }
    return 0;
}

int main(int argc, char **argv)
{
    if ((argc == 2 || argc == 3) && !strcmp(argv[1], "serve"))
        return serve(argc == 3 ? atoi(argv[2]) : 0);
    if (argc == 4 && !strcmp(argv[1], "client"))
        return client(atoi(argv[2]), atoi(argv[3]), 1, 0);
    if (argc == 5 && !strcmp(argv[1], "client"))
        return client(atoi(argv[2]), atoi(argv[3]), !strcmp(argv[4], "in"), 1);
    if (argc == 6 && !strcmp(argv[1], "stream"))
        return stream(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), atoi(argv[5]));
    fprintf(stderr, "usage: peer serve [US] | peer client PORT ROUNDS [in | out] | peer stream PORT ROUNDS LENGTH DEPTH\n");
    return 2;
}
