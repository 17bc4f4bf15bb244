//! The identity of the cluster's servers: product, version, their reply to HELLO, and the newer
//! fields of their CLIENT LIST.

use super::UpstreamId;
use crate::resp::tree::{Value, decode};
use crate::resp::{Protocol, write};

/// The databases of an upstream that has not answered: the one that every server has.
const DATABASES_AT_FIRST: u16 = 1;

/// Server products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Product {
    Redis,
    Valkey,
}

/// Optional fields of a line of CLIENT LIST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientFields {
    /// `capa`: Valkey 8.0.
    pub capa: bool,
    /// `watch`: Redis 7.4, Valkey 8.0.
    pub watch: bool,
    /// `io-thread`: Redis 8.0.
    pub io_thread: bool,
    /// `tot-net-in`, `tot-net-out` and `tot-cmds`: Redis 8.2, Valkey 8.1.
    pub traffic: bool,
}

/// The identity of the cluster's servers, which slotway presents to its clients.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// The product.
    pub product: Product,
    /// Major and minor version.
    pub version: (u16, u16),
    /// `server` in HELLO's reply. Valkey says `redis` with `extended-redis-compatibility`.
    pub hello_server: String,
    /// `version` in HELLO's reply.
    pub hello_version: String,
    /// `modules` in HELLO's reply: the fields of each module.
    modules: Vec<Vec<(String, Field)>>,
    /// Optional fields of CLIENT LIST.
    pub client_fields: ClientFields,
    /// Databases that SELECT accepts. 1, unless the caller of [`Identity::parse`] has asked.
    pub databases: u16,
    /// The number of databases of the other upstreams, in their order.
    pub databases_of_others: Vec<u16>,
}

/// A field of a module in HELLO's reply.
#[derive(Debug, Clone, PartialEq)]
enum Field {
    Integer(i64),
    Text(String),
    /// A list, which is shown empty, as a module's arguments may be secrets.
    List,
}

impl Default for Identity {
    /// The oldest supported server, used until a node has answered.
    fn default() -> Self {
        Identity {
            product: Product::Redis,
            version: (7, 0),
            hello_server: "redis".into(),
            hello_version: "7.0.15".into(),
            modules: Vec::new(),
            client_fields: ClientFields::default(),
            databases: DATABASES_AT_FIRST,
            databases_of_others: Vec::new(),
        }
    }
}

impl Identity {
    /// Notes the number of databases of an upstream.
    pub fn set_databases_of(&mut self, upstream: UpstreamId, databases: u16) {
        let Some(other) = upstream.at().checked_sub(1) else {
            self.databases = databases;
            return;
        };
        if self.databases_of_others.len() <= other {
            self.databases_of_others.resize(other + 1, DATABASES_AT_FIRST);
        }
        if let Some(place) = self.databases_of_others.get_mut(other) {
            *place = databases;
        }
    }

    /// The number of databases of an upstream; 1 until it has answered.
    pub fn databases_of(&self, upstream: UpstreamId) -> u16 {
        match upstream.at().checked_sub(1) {
            None => self.databases,
            Some(other) => {
                self.databases_of_others.get(other).copied().unwrap_or(DATABASES_AT_FIRST)
            }
        }
    }

    /// Parses a node's replies to INFO, HELLO and CLIENT INFO in RESP2. `None`: INFO has no
    /// version. What the node refuses to tell gets the value of an older server.
    pub fn parse(info: &[u8], hello: &[u8], client_info: &[u8]) -> Option<Identity> {
        let info = decode(info).ok()?;
        let info = info.text()?;
        let field = |name: &str| info.lines().find_map(|l| Some(l.strip_prefix(name)?.trim()));
        let redis_version = field("redis_version:")?;
        let (product, version) = match field("valkey_version:") {
            Some(version) => (Product::Valkey, version),
            None => (Product::Redis, redis_version),
        };
        let mut numbers = version.split('.').map(|n| n.parse().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let hello = decode(hello).unwrap_or(Value::Null);
        let said = |name: &str| hello.field(name).and_then(Value::text).map(str::to_owned);
        let modules = hello.field("modules").map_or(&[][..], Value::items);
        let client = decode(client_info).unwrap_or(Value::Null);
        let client = client.text().unwrap_or_default();
        let has = |name: &str| client.contains(name);
        Some(Identity {
            product,
            version,
            hello_server: said("server").unwrap_or_else(|| "redis".into()),
            hello_version: said("version").unwrap_or_else(|| redis_version.to_owned()),
            modules: modules.iter().map(module).collect(),
            client_fields: ClientFields {
                capa: has(" capa="),
                watch: has(" watch="),
                io_thread: has(" io-thread="),
                traffic: has(" tot-net-in="),
            },
            databases: DATABASES_AT_FIRST,
            databases_of_others: Vec::new(),
        })
    }

    /// Appends the list of modules in HELLO's format.
    pub fn write_modules(&self, protocol: Protocol, out: &mut Vec<u8>) {
        write::array_header(out, self.modules.len());
        for module in &self.modules {
            write::map_header(out, protocol, module.len());
            for (name, value) in module {
                write::bulk(out, name.as_bytes());
                match value {
                    Field::Integer(n) => write::integer(out, *n),
                    Field::Text(text) => write::bulk(out, text.as_bytes()),
                    Field::List => write::array_header(out, 0),
                }
            }
        }
    }
}

fn module(module: &Value) -> Vec<(String, Field)> {
    let pairs = module.items().chunks_exact(2);
    let field = |pair: &[Value]| {
        let [name, value] = pair else { return None };
        let value = match value {
            Value::Int(n) => Field::Integer(*n),
            Value::Array(_) => Field::List,
            other => Field::Text(other.text()?.to_owned()),
        };
        Some((name.text()?.to_owned(), value))
    };
    pairs.filter_map(field).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        write::bulk(&mut out, text.as_bytes());
        out
    }

    #[test]
    fn a_valkey_with_a_module() {
        let info = bulk(
            "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\n",
        );
        let hello = b"*6\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n$7\r\nversion\r\n$5\r\n9.1.2\r\n$7\r\nmodules\r\n\
            *1\r\n*6\r\n$4\r\nname\r\n$3\r\nlua\r\n$3\r\nver\r\n:1\r\n$4\r\nargs\r\n*1\r\n$6\r\nsecret\r\n";
        let client = bulk("id=3 flags=N capa= db=0 watch=0 tot-net-in=26 tot-cmds=0\n");
        let identity = Identity::parse(&info, hello, &client).unwrap();
        assert_eq!((identity.product, identity.version), (Product::Valkey, (9, 1)));
        assert_eq!((&*identity.hello_server, &*identity.hello_version), ("valkey", "9.1.2"));
        let fields = ClientFields { capa: true, watch: true, io_thread: false, traffic: true };
        assert_eq!(identity.client_fields, fields);
        let mut out = Vec::new();
        identity.write_modules(Protocol::Resp3, &mut out);
        let shown =
            "*1\r\n%3\r\n$4\r\nname\r\n$3\r\nlua\r\n$3\r\nver\r\n:1\r\n$4\r\nargs\r\n*0\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), shown);
    }

    #[test]
    fn an_upstream_has_one_database_until_it_has_answered() {
        let mut identity = Identity::default();
        identity.set_databases_of(UpstreamId(2), 16);
        let databases = [0, 1, 2, 3].map(|i| identity.databases_of(UpstreamId(i)));
        assert_eq!(databases, [1, 1, 16, 1]);
        identity.set_databases_of(UpstreamId(1), 4);
        identity.set_databases_of(UpstreamId::FIRST, 8);
        let databases = [0, 1, 2, 3].map(|i| identity.databases_of(UpstreamId(i)));
        assert_eq!(databases, [8, 4, 16, 1]);
    }

    #[test]
    fn a_server_that_says_little() {
        let info = bulk("redis_version:7.0.15\r\n");
        let identity = Identity::parse(&info, b"-NOPERM\r\n", b"-NOPERM\r\n").unwrap();
        assert_eq!(identity, Identity::default());
        assert_eq!(Identity::parse(&bulk("x:y"), b"", b""), None);
    }
}
