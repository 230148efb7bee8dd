/* One side of a DTLS association by wolfSSL, as a program that the interoperability tests run (../src/wolfssl.rs).
 *
 *   wolfssl-peer client|server ADDRESS PORT [OPTION VALUE]...
 *
 * A server returns every packet; a client sends a text until it has come back as often as it was told. What happens is one
 * line each on standard output, in the words that all peers of these tests share (../src/peer.rs). The exit code says nothing.
 *
 * It is linked with wolfSSL, which is under the GPL, and is no part of the product.
 */

#include <wolfssl/options.h>
#include <wolfssl/ssl.h>
#include <wolfssl/version.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EXPORTED_BYTES 32
#define RESEND_AFTER_MS 500
#define SENDS_MAX 20
/* Nobody waits longer for this program. */
#define LIFE_SECONDS_MAX 20

struct options {
    int is_server, is_13, is_12_too, mtu, count, update_keys, asks_certificate;
    const char *cert, *key, *ca, *group, *suite, *exporter, *text;
    /* NULL for none; "-" for an empty one. */
    const char *cid;
};

static void say(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    fputc('\n', stdout);
    fflush(stdout);
}

static void give_up(const char *what, int code)
{
    char text[80] = "";
    say("failed error=\"%s: %d %s\"", what, code, code ? wolfSSL_ERR_error_string((unsigned long)-code, text) : "");
    exit(2);
}

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000L + now.tv_nsec / 1000000L;
}

static void say_alerts(WOLFSSL *ssl)
{
    WOLFSSL_ALERT_HISTORY history;
    if (wolfSSL_get_alert_history(ssl, &history) != WOLFSSL_SUCCESS)
        return;
    if (history.last_rx.code > 0)
        say("alert received=%d", history.last_rx.code);
    if (history.last_tx.code > 0)
        say("alert sent=%d", history.last_tx.code);
}

static void end(WOLFSSL *ssl, const char *what, int code)
{
    char text[80] = "";
    say_alerts(ssl);
    say("failed error=\"%s: %d %s\"", what, code, wolfSSL_ERR_error_string((unsigned long)-code, text));
    exit(1);
}

/* Waits for the socket or for wolfSSL's timer; until `limit_ms` at most, unless that is negative. The timer runs on whatever
 * arrives meanwhile, until wolfSSL chooses another time. */
static void wait_for_socket(WOLFSSL *ssl, int fd, long limit_ms)
{
    static long due_ms, patience_before_ms;
    struct pollfd poller = { .fd = fd, .events = POLLIN };
    long patience_ms = wolfSSL_dtls_get_current_timeout(ssl) * 1000L, left_ms;
    if (wolfSSL_dtls13_use_quick_timeout(ssl))
        patience_ms /= 4;
    if (!due_ms || patience_ms != patience_before_ms)
        due_ms = now_ms() + patience_ms;
    patience_before_ms = patience_ms;
    left_ms = due_ms > now_ms() ? due_ms - now_ms() : 0;
    poll(&poller, 1, (int)(limit_ms >= 0 && limit_ms < left_ms ? limit_ms : left_ms));
    if (now_ms() >= due_ms) {
        due_ms = 0;
        wolfSSL_dtls_got_timeout(ssl);
    }
}

static int wants_more(int error)
{
    return error == WOLFSSL_ERROR_WANT_READ || error == WOLFSSL_ERROR_WANT_WRITE;
}

static void use_cid(WOLFSSL *ssl, const char *hex)
{
    unsigned char id[32];
    unsigned int length = 0, byte;
    if (!hex)
        return;
    if (wolfSSL_dtls_cid_use(ssl) != WOLFSSL_SUCCESS)
        give_up("cid_use", 0);
    for (; *hex != '-' && sscanf(hex, "%2x", &byte) == 1 && length < sizeof id; hex += 2)
        id[length++] = (unsigned char)byte;
    if (length && wolfSSL_dtls_cid_set(ssl, id, length) != WOLFSSL_SUCCESS)
        give_up("cid_set", 0);
}

static void say_established(WOLFSSL *ssl, const struct options *options)
{
    unsigned char exported[EXPORTED_BYTES];
    const char *group = wolfSSL_get_curve_name(ssl);
    say("established version=%s suite=%s group=%s", wolfSSL_get_version(ssl), wolfSSL_get_cipher_name(ssl),
        group ? group : "?");
    if (options->cid) {
        unsigned int receives = 0, sends = 0;
        wolfSSL_dtls_cid_get_rx_size(ssl, &receives);
        wolfSSL_dtls_cid_get_tx_size(ssl, &sends);
        say("cid enabled=%d receives=%u sends=%u", wolfSSL_dtls_cid_is_enabled(ssl), receives, sends);
    }
    if (options->exporter) {
        if (wolfSSL_export_keying_material(ssl, exported, sizeof exported, options->exporter, strlen(options->exporter),
                                           (const unsigned char *)"", 0, 1) != WOLFSSL_SUCCESS)
            give_up("export_keying_material", 0);
        printf("exporter value=");
        for (size_t at = 0; at < sizeof exported; at++)
            printf("%02x", exported[at]);
        say("");
    }
}

static void send_text(WOLFSSL *ssl, const char *text)
{
    int sent = wolfSSL_write(ssl, text, (int)strlen(text));
    if (sent <= 0 && !wants_more(wolfSSL_get_error(ssl, sent)))
        end(ssl, "write", wolfSSL_get_error(ssl, sent));
}

/* Packets to and fro until the other side closes, or, for a client, until enough have come back. */
static void talk(WOLFSSL *ssl, int fd, const struct options *options)
{
    char packet[16384 + 1];
    int sends = 0, back = 0;
    long again_at = now_ms();
    for (;;) {
        long limit_ms = -1;
        if (!options->is_server) {
            if (now_ms() >= again_at) {
                if (sends++ == SENDS_MAX)
                    end(ssl, "no answer", 0);
                send_text(ssl, options->text);
                again_at = now_ms() + RESEND_AFTER_MS;
            }
            limit_ms = again_at - now_ms();
        }
        int length = wolfSSL_read(ssl, packet, sizeof packet - 1);
        if (length <= 0) {
            int error = wolfSSL_get_error(ssl, length);
            if (error == WOLFSSL_ERROR_ZERO_RETURN) {
                say("closed");
                wolfSSL_shutdown(ssl);
                return;
            }
            if (!wants_more(error))
                end(ssl, "read", error);
            wait_for_socket(ssl, fd, limit_ms < 0 && !options->is_server ? 0 : limit_ms);
            continue;
        }
        packet[length] = 0;
        say("packet text=\"%s\"", packet);
        if (options->is_server) {
            send_text(ssl, packet);
            continue;
        }
        if (strcmp(packet, options->text) != 0)
            continue;
        if (++back == options->count) {
            wolfSSL_shutdown(ssl);
            say("closed");
            return;
        }
        if (options->update_keys && wolfSSL_update_keys(ssl) != WOLFSSL_SUCCESS)
            end(ssl, "update_keys", wolfSSL_get_error(ssl, 0));
        sends = 0;
        again_at = now_ms();
    }
}

static int open_socket(const struct options *options, const char *address, const char *port, struct sockaddr_in *peer)
{
    struct sockaddr_in there = { .sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port)) };
    socklen_t length = sizeof there;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || inet_pton(AF_INET, address, &there.sin_addr) != 1)
        give_up("socket", 0);
    if (options->is_server) {
        char first;
        if (bind(fd, (struct sockaddr *)&there, length) != 0)
            give_up("bind", 0);
        getsockname(fd, (struct sockaddr *)&there, &length);
        say("listening address=%s:%d", address, ntohs(there.sin_port));
        /* One association is all that is served: the first datagram says with whom. */
        length = sizeof *peer;
        if (recvfrom(fd, &first, 1, MSG_PEEK, (struct sockaddr *)peer, &length) < 0)
            give_up("recvfrom", 0);
    } else {
        *peer = there;
    }
    if (connect(fd, (struct sockaddr *)peer, sizeof *peer) != 0)
        give_up("connect", 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static WOLFSSL_CTX *new_context(const struct options *options)
{
    WOLFSSL_METHOD *method;
    if (options->is_12_too)
        method = options->is_server ? wolfDTLS_server_method() : wolfDTLS_client_method();
    else if (options->is_13)
        method = options->is_server ? wolfDTLSv1_3_server_method() : wolfDTLSv1_3_client_method();
    else
        method = options->is_server ? wolfDTLSv1_2_server_method() : wolfDTLSv1_2_client_method();
    WOLFSSL_CTX *context = wolfSSL_CTX_new(method);
    if (!context)
        give_up("CTX_new", 0);
    if (options->cert && wolfSSL_CTX_use_certificate_chain_file(context, options->cert) != WOLFSSL_SUCCESS)
        give_up("certificate", 0);
    if (options->key && wolfSSL_CTX_use_PrivateKey_file(context, options->key, WOLFSSL_FILETYPE_PEM) != WOLFSSL_SUCCESS)
        give_up("key", 0);
    if (options->ca && wolfSSL_CTX_load_verify_locations(context, options->ca, NULL) != WOLFSSL_SUCCESS)
        give_up("authorities", 0);
    if (options->suite && wolfSSL_CTX_set_cipher_list(context, options->suite) != WOLFSSL_SUCCESS)
        give_up("suite", 0);
    if (options->mtu && wolfSSL_CTX_dtls_set_mtu(context, (unsigned short)options->mtu) != WOLFSSL_SUCCESS)
        give_up("mtu", 0);
    if (!options->is_server || options->asks_certificate)
        wolfSSL_CTX_set_verify(context, WOLFSSL_VERIFY_PEER | WOLFSSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    else
        wolfSSL_CTX_set_verify(context, WOLFSSL_VERIFY_NONE, NULL);
    return context;
}

static int group_number(const char *name)
{
    if (!strcmp(name, "x25519"))
        return WOLFSSL_ECC_X25519;
    if (!strcmp(name, "p256"))
        return WOLFSSL_ECC_SECP256R1;
    if (!strcmp(name, "p384"))
        return WOLFSSL_ECC_SECP384R1;
#ifdef WOLFSSL_HAVE_MLKEM
    if (!strcmp(name, "x25519mlkem768"))
        return WOLFSSL_X25519MLKEM768;
#endif
    give_up("group", 0);
    return 0;
}

static void parse(struct options *options, int count, char **values)
{
    for (int at = 0; at + 1 < count; at += 2) {
        const char *name = values[at], *value = values[at + 1];
        if (!strcmp(name, "--version")) options->is_13 = strcmp(value, "1.2") != 0, options->is_12_too = !strcmp(value, "both");
        else if (!strcmp(name, "--cert")) options->cert = value;
        else if (!strcmp(name, "--key")) options->key = value;
        else if (!strcmp(name, "--ca")) options->ca = value;
        else if (!strcmp(name, "--group")) options->group = value;
        else if (!strcmp(name, "--suite")) options->suite = value;
        else if (!strcmp(name, "--exporter")) options->exporter = value;
        else if (!strcmp(name, "--cid")) options->cid = value;
        else if (!strcmp(name, "--mtu")) options->mtu = atoi(value);
        else if (!strcmp(name, "--count")) options->count = atoi(value);
        else if (!strcmp(name, "--text")) options->text = value;
        else if (!strcmp(name, "--update-keys")) options->update_keys = atoi(value);
        else if (!strcmp(name, "--client-cert")) options->asks_certificate = !strcmp(value, "required");
        else give_up(name, 0);
    }
}

int main(int count, char **values)
{
    struct options options = { .is_13 = 1, .count = 1, .text = "hello" };
    struct sockaddr_in peer = { 0 };
    int result;
    if (count == 2 && !strcmp(values[1], "version")) {
        say("wolfSSL %s", LIBWOLFSSL_VERSION_STRING);
        return 0;
    }
    if (count < 4) {
        fprintf(stderr, "usage: %s client|server ADDRESS PORT [OPTION VALUE]...\n", values[0]);
        return 2;
    }
    options.is_server = !strcmp(values[1], "server");
    parse(&options, count - 4, values + 4);

    alarm(LIFE_SECONDS_MAX);
    wolfSSL_Init();
    WOLFSSL_CTX *context = new_context(&options);
    int fd = open_socket(&options, values[2], values[3], &peer);
    WOLFSSL *ssl = wolfSSL_new(context);
    if (!ssl)
        give_up("new", 0);
    wolfSSL_dtls_set_using_nonblock(ssl, 1);
    wolfSSL_dtls_set_timeout_init(ssl, 1);
    wolfSSL_dtls_set_peer(ssl, &peer, sizeof peer);
    wolfSSL_set_fd(ssl, fd);
    use_cid(ssl, options.cid);
    /* What the exporter works on is forgotten otherwise. */
    if (options.exporter)
        wolfSSL_KeepArrays(ssl);
    if (options.group) {
        int group = group_number(options.group);
        if (options.is_server ? wolfSSL_set_groups(ssl, &group, 1) != WOLFSSL_SUCCESS
                              : options.is_13 && wolfSSL_UseKeyShare(ssl, (unsigned short)group) != WOLFSSL_SUCCESS)
            give_up("group", 0);
    }
    if (options.is_server && options.is_13) {
        wolfSSL_send_hrr_cookie(ssl, NULL, 0);
        wolfSSL_dtls13_allow_ch_frag(ssl, 1);
    }
    while ((result = options.is_server ? wolfSSL_accept(ssl) : wolfSSL_connect(ssl)) != WOLFSSL_SUCCESS) {
        int error = wolfSSL_get_error(ssl, result);
        if (!wants_more(error))
            end(ssl, "handshake", error);
        wait_for_socket(ssl, fd, -1);
    }
    say_established(ssl, &options);
    talk(ssl, fd, &options);
    say_alerts(ssl);
    return 0;
}
