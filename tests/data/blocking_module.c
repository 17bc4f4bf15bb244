/* A Redis module whose commands block without the flag "blocking" in COMMAND, for tests/modules.rs.
 *
 * Compiled without redismodule.h: the few functions that are used are declared here, and found as
 * that header finds them, by the server's GetApi at the start of the context.
 *
 *   HOLD.READ key ms     blocks the client for ms milliseconds, then answers OK; only reads
 *   HOLD.WRITE key ms    the same behind INCR key; may write
 *   HOLD.ANY ms          the same without a key
 *   HOLD.BUSY key ms     keeps the whole server busy for ms milliseconds; blocks nobody
 */
#include <stddef.h>
#include <unistd.h>

typedef struct Ctx Ctx;
typedef struct String String;
typedef struct Reply Reply;
typedef struct Blocked Blocked;
typedef int (*Command)(Ctx *, String **, int);

static int (*GetApi)(const char *, void *);
static void (*SetModuleAttribs)(Ctx *, const char *, int, int);
static int (*CreateCommand)(Ctx *, const char *, Command, const char *, int, int, int);
static Blocked *(*BlockClient)(Ctx *, Command, Command, void (*)(Ctx *, void *), long long);
static int (*ReplyWithSimpleString)(Ctx *, const char *);
static int (*ReplyWithError)(Ctx *, const char *);
static int (*StringToLongLong)(const String *, long long *);
static Reply *(*Call)(Ctx *, const char *, const char *, ...);
static void (*FreeCallReply)(Reply *);
static int (*WrongArity)(Ctx *);

static int done(Ctx *ctx, String **argv, int argc) {
    (void)argv;
    (void)argc;
    return ReplyWithSimpleString(ctx, "OK");
}

static int block(Ctx *ctx, String *ms) {
    long long time;
    if (StringToLongLong(ms, &time) || time <= 0) return ReplyWithError(ctx, "ERR no time");
    BlockClient(ctx, NULL, done, NULL, time);
    return 0;
}

static int hold_read(Ctx *ctx, String **argv, int argc) {
    return argc == 3 ? block(ctx, argv[2]) : WrongArity(ctx);
}

static int hold_write(Ctx *ctx, String **argv, int argc) {
    if (argc != 3) return WrongArity(ctx);
    Reply *reply = Call(ctx, "INCR", "s!", argv[1]);
    if (reply) FreeCallReply(reply);
    return block(ctx, argv[2]);
}

static int hold_any(Ctx *ctx, String **argv, int argc) {
    return argc == 2 ? block(ctx, argv[1]) : WrongArity(ctx);
}

static int hold_busy(Ctx *ctx, String **argv, int argc) {
    long long time;
    if (argc != 3) return WrongArity(ctx);
    if (StringToLongLong(argv[2], &time)) return ReplyWithError(ctx, "ERR no time");
    usleep(time * 1000);
    return done(ctx, argv, argc);
}

#define API(name) GetApi("RedisModule_" #name, (void *)&name)

int RedisModule_OnLoad(Ctx *ctx, String **argv, int argc) {
    (void)argv;
    (void)argc;
    GetApi = (int (*)(const char *, void *))((void **)ctx)[0];
    API(SetModuleAttribs);
    API(CreateCommand);
    API(BlockClient);
    API(ReplyWithSimpleString);
    API(ReplyWithError);
    API(StringToLongLong);
    API(Call);
    API(FreeCallReply);
    API(WrongArity);
    SetModuleAttribs(ctx, "hold", 1, 1);
    return CreateCommand(ctx, "hold.read", hold_read, "readonly", 1, 1, 1)
        || CreateCommand(ctx, "hold.write", hold_write, "write", 1, 1, 1)
        || CreateCommand(ctx, "hold.any", hold_any, "readonly", 0, 0, 0)
        || CreateCommand(ctx, "hold.busy", hold_busy, "readonly", 1, 1, 1);
}
