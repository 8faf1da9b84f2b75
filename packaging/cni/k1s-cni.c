/* k1s-cni: the CNI plugin that containerd execs. It hands the call to the agent's socket and prints the answer.
 *
 * To the agent: every CNI_* variable as NAME=VALUE\0, one empty string, then standard input up to its end.
 * Back: the exit code in decimal, a newline, what goes to standard output.
 * The socket's path is the key "socket" of the network configuration; VERSION is answered here, and as `loopback`
 * everything is (the agent brings lo up with the pod's own interface). The Python twin is k1s/net/cni/shim.py.
 * Build: cc -O2 -s -o k1s-cni k1s-cni.c
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MAX_INPUT (1 << 20)
static char input[MAX_INPUT + 1], answer[MAX_INPUT + 1];
extern char **environ;

/* The string value of a key, or dflt. An escaped quote inside a JSON string cannot look like "key", so a scan is enough. */
static const char *value_of(const char *key, const char *dflt, char *out, size_t size) {
    const char *p = strstr(input, key);
    size_t n = 0;
    if (!p) return dflt;
    for (p += strlen(key); *p == ' ' || *p == '\t' || *p == '\n' || *p == '\r' || *p == ':'; p++) {}
    if (*p++ != '"') return dflt;
    while (*p && *p != '"' && n + 1 < size) out[n++] = *p++;
    out[n] = 0;
    return *p == '"' ? out : dflt;
}

static int fail(const char *version, int code, const char *message, const char *details) {
    printf("{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":\"%s\",\"details\":\"%s\"}\n", version, code, message, details);
    return 1;
}

static int send_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return -1;
        data += n, size -= (size_t)n;
    }
    return 0;
}

static size_t read_all(int fd, char *out) {
    size_t size = 0;
    for (ssize_t n; size < MAX_INPUT; size += (size_t)n) {
        n = read(fd, out + size, MAX_INPUT - size);
        if (n < 0 && errno == EINTR) n = 0;
        else if (n <= 0) break;
    }
    out[size] = 0;
    return size;
}

int main(int argc, char **argv) {
    char version_text[32], path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    const char *command = getenv("CNI_COMMAND"), *name = argc ? strrchr(argv[0], '/') : NULL;
    name = name ? name + 1 : argc ? argv[0] : "";
    size_t size = read_all(0, input);
    const char *version = value_of("\"cniVersion\"", "1.0.0", version_text, sizeof version_text);
    if (!command) return fail(version, 4, "CNI_COMMAND is not set", "");
    if (!strcmp(command, "VERSION")) {
        printf("{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n");
        return 0;
    }
    if (!strcmp(name, "loopback")) {
        if (!strcmp(command, "ADD"))
            printf("{\"cniVersion\":\"%s\",\"interfaces\":[{\"name\":\"lo\",\"sandbox\":\"%s\"}],\"ips\":[]}\n", version,
                   getenv("CNI_NETNS") ? getenv("CNI_NETNS") : "");
        return 0;
    }
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *socket_path = value_of("\"socket\"", NULL, path, sizeof path);
    if (!socket_path) return fail(version, 7, "the network configuration has no key socket (or a path too long for one)", "");
    strcpy(address.sun_path, socket_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return fail(version, 11, "the k1s agent does not answer (is it running?)", strerror(errno));
    for (char **variable = environ; *variable; variable++)
        if (!strncmp(*variable, "CNI_", 4) && send_all(fd, *variable, strlen(*variable) + 1) < 0)
            return fail(version, 11, "the k1s agent closed the connection", strerror(errno));
    if (send_all(fd, "", 1) < 0 || send_all(fd, input, size) < 0 || shutdown(fd, SHUT_WR) < 0)
        return fail(version, 11, "the k1s agent closed the connection", strerror(errno));
    size_t got = read_all(fd, answer);
    char *body = strchr(answer, '\n');
    if (!body) return fail(version, 11, "the k1s agent closed the connection before it answered", "");
    body++;
    fwrite(body, 1, got - (size_t)(body - answer), stdout);
    return atoi(answer);
}
