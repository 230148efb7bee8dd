// UDP generator and sink, cheaper than iperf3: sendmmsg and recvmmsg, paced.
//
//   blast send HOST PORT SIZE SECS RATE     RATE in packets/s
//   blast recv PORT SECS                    counts from the first packet on
//   blast hello-send PORT SIZE SECS RATE    waits for one packet, then sends to where it came from
//   blast hello-recv HOST PORT SECS         sends that packet, then counts
//
// Each prints one JSON object.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SEND_BATCH = 32, RECV_BATCH = 64, PACKET_MAX = 2048, SOCKET_BUFFER = 4 << 20 };

// Without a packet for so long the sink gives up: before the first one, and after the last one.
static const double FIRST_PACKET_SECS = 5, QUIET_SECS = 0.3;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void fill(struct mmsghdr *messages, struct iovec *vectors, char buffers[][PACKET_MAX], int count, size_t size) {
  for (int i = 0; i < count; i++) {
    vectors[i] = (struct iovec){buffers[i], size};
    messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
  }
}

static void run_sender(int fd, size_t size, double secs, double rate) {
  static char buffers[SEND_BATCH][PACKET_MAX];
  struct mmsghdr messages[SEND_BATCH] = {0};
  struct iovec vectors[SEND_BATCH];
  fill(messages, vectors, buffers, SEND_BATCH, size);
  double began = now(), t = began;
  long sent = 0, errors = 0;
  while ((t = now()) - began < secs) {
    double due = rate * (t - began) - sent;
    if (due < 1) {
      struct timespec pause = {0, 100000};
      nanosleep(&pause, 0);
      continue;
    }
    int done = sendmmsg(fd, messages, due < SEND_BATCH ? (int)due : SEND_BATCH, 0);
    if (done >= 0) {
      sent += done;
    } else if (errno == ENOBUFS || errno == EAGAIN || errno == ECONNREFUSED) {
      errors++;
    } else {
      perror("sendmmsg");
      exit(1);
    }
  }
  printf("{\"sent\": %ld, \"errors\": %ld, \"secs\": %.3f}\n", sent, errors, t - began);
}

static void run_receiver(int fd, double secs) {
  static char buffers[RECV_BATCH][PACKET_MAX];
  struct mmsghdr messages[RECV_BATCH] = {0};
  struct iovec vectors[RECV_BATCH];
  fill(messages, vectors, buffers, RECV_BATCH, PACKET_MAX);
  double began = now(), first = 0, last = 0;
  long received = 0;
  for (;;) {
    struct pollfd readable = {fd, POLLIN, 0};
    int ready = poll(&readable, 1, 100);
    double t = now();
    if (!first && t - began > FIRST_PACKET_SECS) break;
    if (first && (t - first > secs + 0.4 || (ready == 0 && t - last > QUIET_SECS))) break;
    int count = ready > 0 ? recvmmsg(fd, messages, RECV_BATCH, MSG_DONTWAIT, 0) : 0;
    if (count <= 0) continue;
    if (!first) first = t;
    last = t;
    received += count;
  }
  printf("{\"received\": %ld, \"secs\": %.3f}\n", received, last - first);
}

static void to_host(int fd, const char *host, const char *port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
  if (inet_pton(AF_INET, host, &to.sin_addr) != 1 || connect(fd, (void *)&to, sizeof to)) {
    perror("connect");
    exit(1);
  }
}

static void at_port(int fd, const char *port) {
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
  if (bind(fd, (void *)&here, sizeof here)) {
    perror("bind");
    exit(1);
  }
}

static void await_hello(int fd) {
  struct sockaddr_in from;
  socklen_t length = sizeof from;
  char hello[PACKET_MAX];
  if (recvfrom(fd, hello, sizeof hello, 0, (void *)&from, &length) < 0 || connect(fd, (void *)&from, length)) {
    perror("hello");
    exit(1);
  }
}

int main(int argc, char **argv) {
  int fd = socket(AF_INET, SOCK_DGRAM, 0), buffer = SOCKET_BUFFER;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
  if (argc == 7 && !strcmp(argv[1], "send")) {
    to_host(fd, argv[2], argv[3]);
    run_sender(fd, atoi(argv[4]), atof(argv[5]), atof(argv[6]));
  } else if (argc == 4 && !strcmp(argv[1], "recv")) {
    at_port(fd, argv[2]);
    run_receiver(fd, atof(argv[3]));
  } else if (argc == 6 && !strcmp(argv[1], "hello-send")) {
    at_port(fd, argv[2]);
    await_hello(fd);
    run_sender(fd, atoi(argv[3]), atof(argv[4]), atof(argv[5]));
  } else if (argc == 5 && !strcmp(argv[1], "hello-recv")) {
    to_host(fd, argv[2], argv[3]);
    if (send(fd, "hi", 2, 0) < 0) perror("hello");
    run_receiver(fd, atof(argv[4]));
  } else {
    fprintf(stderr, "usage: see the first lines of blast.c\n");
    return 2;
  }
  return 0;
}
