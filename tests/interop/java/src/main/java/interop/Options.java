package interop;

import java.util.Arrays;
import java.util.Map;
import java.util.TreeMap;

/** Arguments of the form name=value; a name that nobody asked for is an error. */
final class Options {
    private final Map<String, String> values = new TreeMap<>();

    Options(String[] arguments, String... known) {
        for (String argument : arguments) {
            String[] parts = argument.split("=", 2);
            if (parts.length != 2 || !Arrays.asList(known).contains(parts[0])) {
                throw new IllegalArgumentException(
                        "unknown argument " + argument + "; known are " + String.join("=, ", known) + "=");
            }
            values.put(parts[0], parts[1]);
        }
    }

    String text(String name) {
        String value = values.get(name);
        if (value == null) {
            throw new IllegalArgumentException("the argument " + name + "= is missing");
        }
        return value;
    }

    String text(String name, String otherwise) {
        return values.getOrDefault(name, otherwise);
    }

    int number(String name) {
        return Integer.parseInt(text(name));
    }

    int number(String name, int otherwise) {
        return values.containsKey(name) ? number(name) : otherwise;
    }
}
